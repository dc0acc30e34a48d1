"""The two PyTorch baselines on a device: the released way, and the shared prefix."""

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from murank.prompt import Layout, default_template
from murank_export.mllm.checkpoint import Checkpoint
from murank_export.mllm.reference import pixel_values
from murank_export.mllm.tokens import answer_ids, prompt_tokens

Pixels = NDArray[np.uint8]


class Baseline:
    """A PyTorch model, asked as an engine of the same prompt is asked; as in scoring.py."""

    def __init__(
        self, checkpoint: Checkpoint, layout: Layout, device: str, dtype: torch.dtype
    ) -> None:
        self.checkpoint = checkpoint
        self.device, self.dtype = device, dtype
        self.model = checkpoint.model.to(device=device, dtype=dtype)
        self.grid, _ = checkpoint.grid(None)
        self.tokens = prompt_tokens(checkpoint, default_template(), layout)
        self.answers = list(answer_ids(checkpoint.tokenizer))
        # In the baselines' favour: transformers 4 has this model compute the logits of all tokens.
        self.model.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -1:],))
        config = self.model.generation_config
        config.eos_token_id, config.pad_token_id, config.do_sample = None, 0, False

    def released(self, query: Pixels, candidates: Pixels) -> NDArray[np.float32]:
        """Generate one token behind each of the whole prompts, in one batch."""
        ids = self._on_device([self.tokens.full(self.grid.num_tokens)] * len(candidates))
        images = np.stack([x for c in candidates for x in (query, c)])
        more = {}
        if "mm_token_type_ids" in inspect.signature(self.model.forward).parameters:
            more["mm_token_type_ids"] = (ids == self.tokens.image).int()  # transformers 5
        self.model.model.rope_deltas = None
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=self._patches(images),
                image_grid_thw=self._shape(len(images)),
                max_new_tokens=1,
                output_scores=True,
                return_dict_in_generate=True,
                **more,
            )
        return self._host(out.scores[0][:, self.answers])

    def vision(self, images: Pixels) -> Any:
        """Vision tokens [n,T,H]; they stay on the device."""
        with torch.inference_mode():
            found = self.model.model.get_image_features(
                self._patches(images), self._shape(len(images))
            )
        found = getattr(found, "pooler_output", found)
        return torch.stack(list(found)) if isinstance(found, tuple | list) else found

    def reuse(self, query: Pixels, known: Any) -> NDArray[np.float32]:
        """Prefix once, its K/V repeated for the batch of suffixes; candidates' tokens are known."""
        from transformers import DynamicCache

        model, count = self.model, len(known)
        seen = self.vision(query[None])
        embed = model.get_input_embeddings()
        static, prefill, suffix = (x.to(self.device) for x in self.tokens.positions(self.grid))
        with torch.inference_mode():
            text = [embed(self._on_device([i])) for i in (self.tokens.static, self.tokens.between)]
            before = torch.cat([text[0], seen, text[1]], 1)
            behind = embed(self._on_device([self.tokens.behind])).expand(count, -1, -1)
            cache: Any = DynamicCache(config=model.config.text_config)
            language = model.model.language_model
            language(
                inputs_embeds=before,
                position_ids=torch.cat([static, prefill], 1)[:, None],
                past_key_values=cache,
                use_cache=True,
            )
            cache.batch_repeat_interleave(count)
            hidden = language(
                inputs_embeds=torch.cat([known, behind], 1),
                position_ids=suffix[:, None].expand(-1, count, -1),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            head = model.lm_head.weight[self.answers]
            return self._host(torch.nn.functional.linear(hidden[:, -1], head))

    def _patches(self, images: Pixels) -> torch.Tensor:
        return pixel_values(images, self.grid, self.checkpoint).to(self.device, self.dtype)

    def _shape(self, images: int) -> torch.Tensor:
        return self._on_device([[1, self.grid.rows, self.grid.columns]] * images)

    def _on_device(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, device=self.device)

    def _host(self, logits: torch.Tensor) -> NDArray[np.float32]:
        """Download, which waits for the device."""
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found

"""Oracle: the whole two-image prompt through transformers, with its own tokenizer and processor.

Shares nothing with the package but the folder: messages are written out here, images go through
the PIL-based image processor, token ids through the chat template, positions are the model's own.
"""

import functools
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from pil_processors import Qwen2VLImageProcessor

hf: Any = transformers
CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
}
SIZES = {"qwen2_vl": (280, 140), "qwen2_5_vl": (280, 140), "qwen3_vl": (288, 128)}
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALVES = ([0.5] * 3, [0.5] * 3)


def messages(template: dict[str, Any], layout: str) -> list[dict[str, Any]]:
    """The user turn, written out."""
    rules = "\n".join([*template["rules"], template["response_format"]])
    query = [{"type": "text", "text": "Query:"}, {"type": "image"}]
    candidate = [{"type": "text", "text": " Candidate:"}, {"type": "image"}]
    task = {"type": "text", "text": template["task_description"]}
    if layout == "paper":
        content = [task, *query, *candidate, {"type": "text", "text": rules}]
    else:
        content = [task, {"type": "text", "text": rules + "\n"}, *query, *candidate]
    return [{"role": "user", "content": content}]


@functools.cache
def tokenizer_of(folder: Path) -> Any:
    return hf.AutoTokenizer.from_pretrained(folder)


class FullPrompt:
    """A family's model, tokenizer and image processor."""

    def __init__(
        self, folder: Path, family: str, template: dict[str, Any], layout: str, model: Any = None
    ) -> None:
        kind = getattr(hf, CLASSES[family])
        self.model = model or kind.from_pretrained(folder, dtype=torch.float32).eval()
        self.size = SIZES[family]
        mean, std = HALVES if family == "qwen3_vl" else CLIP
        self.processor = Qwen2VLImageProcessor(
            patch_size=16 if family == "qwen3_vl" else 14, image_mean=mean, image_std=std
        )
        self.tokenizer = tokenizer_of(folder)
        chat_template = None
        if (folder / "chat_template.json").exists():
            chat_template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
        self.text = self.tokenizer.apply_chat_template(
            messages(template, layout), chat_template=chat_template, tokenize=False,
            add_generation_prompt=True,
        )  # fmt: skip
        answers = [self.tokenizer(word).input_ids[0] for word in ("No", "Yes")]
        self.answers = answers

    def ids(self, tokens: int) -> list[int]:
        """Token ids of the prompt with `tokens` vision tokens an image."""
        pad = "<|image_pad|>"
        found: list[int] = self.tokenizer(self.text.replace(pad, pad * tokens)).input_ids
        return found

    def inputs(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        """The model's inputs for two images."""
        height, width = self.size
        resized = [Image.fromarray(image).resize((width, height)) for image in images]
        pixels = self.processor(resized, return_tensors="pt")
        tokens = int(pixels["image_grid_thw"][0].prod()) // 4
        ids = torch.tensor([self.ids(tokens)])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
        if "mm_token_type_ids" in inspect.signature(self.model.forward).parameters:
            inputs["mm_token_type_ids"] = (ids == self.model.config.image_token_id).int()
        return inputs

    def logits(
        self, query: NDArray[np.uint8], candidates: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        """Answer logits [K,2] of No and Yes, one whole prompt a candidate."""
        rows = []
        for candidate in candidates:
            self.model.model.rope_deltas = None
            with torch.inference_mode():
                output = self.model(**self.inputs([query, candidate]), use_cache=False)
            rows.append(output.logits[0, -1, self.answers].float().numpy())
        return np.stack(rows)

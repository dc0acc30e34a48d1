"""Several candidates of one query in one sequence: what stands before them is computed once.

A sequence is the shared prefix (up to the candidate image), then one suffix a candidate (its image,
what follows, the answer). A suffix sees the prefix and itself, at the positions it would have in a
prompt of its own, so that each pair's answer is that of its whole two-image prompt.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from murank_export.graphs.geometry import Grid, token_positions
from murank_export.mllm.tokens import PromptTokens


@dataclass(frozen=True)
class PackedPrompt:
    """Layout of a sequence with k candidates: T tokens, A of them in each answer."""

    ids: Tensor  # [T] int64; the answers' places hold a filler
    positions: Tensor  # [3,T] int64: M-RoPE
    mask: Tensor  # [T,T] bool: may the row's token see the column's?
    is_image: Tensor  # [T] bool: query's tokens first, then each candidate's
    answer_inputs: Tensor  # [k,A] int64: where the answer's tokens stand
    answer_outputs: Tensor  # [k,A+1] int64: where they, and the end of the turn, are predicted


def pack(tokens: PromptTokens, grid: Grid, candidates: int, answer_length: int = 1) -> PackedPrompt:
    """Lay out a sequence; with one candidate it is the whole two-image prompt and its answer."""
    prefix = len(tokens.static) + grid.num_tokens + len(tokens.between)
    suffix = grid.num_tokens + len(tokens.behind) + answer_length
    whole = [*tokens.full(grid.num_tokens), *tokens.behind[-1:] * answer_length]
    ids = torch.tensor(whole)
    positions = token_positions([token == tokens.image for token in whole], grid)
    copies = [ids[prefix:]] * candidates, [positions[:, prefix:]] * candidates
    ids = torch.cat([ids[:prefix], *copies[0]])
    owner = torch.arange(1, candidates + 1).repeat_interleave(suffix)
    owner = torch.cat([torch.zeros(prefix, dtype=torch.long), owner])  # 0: shared
    seen = (owner == 0) | (owner[:, None] == owner)
    ends = prefix + suffix * torch.arange(1, candidates + 1)
    outputs = ends[:, None] + torch.arange(-answer_length - 1, 0)
    return PackedPrompt(
        ids=ids,
        positions=torch.cat([positions[:, :prefix], *copies[1]], 1),
        mask=seen.tril(),
        is_image=ids == tokens.image,
        answer_inputs=outputs[:, 1:],
        answer_outputs=outputs,
    )


def image_tokens(model: Any, pixels: Tensor, grid: Grid) -> Tensor:
    """Run the vision tower: patches [N*patches,...] -> vision tokens [N,levels,tokens,H].

    Level 0 is what the prompt holds; more are what Qwen3-VL adds behind its first layers.
    """
    count = len(pixels) // grid.num_patches
    sizes = torch.tensor([[1, grid.rows, grid.columns]] * count, device=pixels.device)
    found = model.model.get_image_features(pixels, sizes)
    if hasattr(found, "pooler_output"):  # transformers 5
        levels = [found.pooler_output, *(getattr(found, "deepstack_features", None) or ())]
    elif hasattr(model.config.vision_config, "deepstack_visual_indexes"):
        levels = [found[0], *found[1]]
    else:
        levels = [found]
    whole = [level if torch.is_tensor(level) else torch.cat(tuple(level)) for level in levels]
    return torch.stack([level.reshape(count, grid.num_tokens, -1) for level in whole], 1)


def forward(
    model: Any, packed: PackedPrompt, query: Tensor, candidates: Tensor, answers: Tensor
) -> Tensor:
    """Return the logits of the answers, float32 [B,k,A+1,vocabulary].

    Parameters
    ----------
    model
        ForConditionalGeneration of a family; adapters may be in it.
    packed
        Layout of every sequence, on the model's device.
    query, candidates
        Vision tokens [B,levels,tokens,H] and [B,k,levels,tokens,H].
    answers
        Token ids [B,k,A] that stand in the answers' places. Nothing before them depends on them.
    """
    batch = len(answers)
    ids = packed.ids.repeat(batch, 1)
    ids[:, packed.answer_inputs] = answers
    embeds = model.get_input_embeddings()(ids)
    images = torch.cat([query[:, None], candidates], 1)  # [B,1+k,levels,tokens,H]
    first, *deeper = images.movedim(2, 0).flatten(1, 3).to(embeds.dtype)
    is_image = packed.is_image.expand(batch, -1)
    deepstack = {"visual_pos_masks": is_image, "deepstack_visual_embeds": deeper} if deeper else {}
    hidden = model.model.language_model(
        inputs_embeds=embeds.masked_scatter(is_image[..., None], first),
        attention_mask=_additive(packed.mask, embeds.dtype).expand(batch, 1, -1, -1),
        position_ids=packed.positions[:, None].expand(-1, batch, -1),
        use_cache=False,
        **deepstack,
    ).last_hidden_state
    logits: Tensor = model.lm_head(hidden[:, packed.answer_outputs])
    return logits.float()


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """[T,T] bool -> 0 or the lowest number: the form that every attention of theirs takes."""
    lowest = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, lowest)

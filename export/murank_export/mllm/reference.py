"""The answer of the PyTorch model to whole two-image prompts: what every export is measured by."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from murank import InputError
from murank_export.graphs.geometry import Grid
from murank_export.mllm.checkpoint import Checkpoint
from murank_export.mllm.tokens import PromptTokens


def pair_logits(
    checkpoint: Checkpoint,
    tokens: PromptTokens,
    grid: Grid,
    answer_ids: Sequence[int],
    query: NDArray[np.uint8],
    candidates: NDArray[np.uint8],
) -> NDArray[np.float32]:
    """Return the answer logits [K,2] of a query [3,H,W] and candidates [K,3,H,W], pair by pair.

    Raises
    ------
    InputError
        They are not finite: the weights are damaged.
    """
    rows = [
        _forward(checkpoint, tokens, grid, np.stack([query, candidate]))[list(answer_ids)]
        for candidate in candidates
    ]
    logits: NDArray[np.float32] = torch.stack(rows).numpy()
    if not np.isfinite(logits).all():
        raise InputError(f"{checkpoint.folder}: the model's own answers are NaN or infinite")
    return logits


def _forward(
    checkpoint: Checkpoint, tokens: PromptTokens, grid: Grid, images: NDArray[np.uint8]
) -> Tensor:
    model = checkpoint.model
    ids = torch.tensor([tokens.full(grid.num_tokens)])
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixel_values(images, grid, checkpoint),
        "image_grid_thw": torch.tensor([[1, grid.rows, grid.columns]] * 2),
    }
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:  # transformers 5
        inputs["mm_token_type_ids"] = (ids == tokens.image).int()
    model.model.rope_deltas = None  # kept by the model from an earlier prompt
    with torch.inference_mode():
        logits: Tensor = model(**inputs, use_cache=False, logits_to_keep=1).logits
    return logits[0, -1].float()


def pixel_values(images: NDArray[np.uint8], grid: Grid, checkpoint: Checkpoint) -> Tensor:
    """Return patches [images*patches, 3*frames*patch*patch], as the family's processor does."""
    frames = int(checkpoint.model.config.vision_config.temporal_patch_size)
    mean, std = (
        torch.tensor(value).reshape(3, 1, 1) for value in (checkpoint.mean, checkpoint.std)
    )
    rows = []
    for image in images:
        x = (torch.from_numpy(image).float() / 255 - mean) / std
        x = x.reshape(3, grid.rows, grid.patch, grid.columns, grid.patch).permute(1, 3, 0, 2, 4)
        x = grid.in_token_order(x)[:, :, None].expand(-1, -1, frames, -1, -1)
        rows.append(x.reshape(grid.num_patches, -1))
    return torch.cat(rows)

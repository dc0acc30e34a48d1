"""The answer of the PyTorch model to whole two-image prompts: what every export is measured by."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from murank import InputError
from murank_export.graphs.geometry import Grid
from murank_export.mllm.checkpoint import Checkpoint
from murank_export.mllm.tokens import PromptTokens


@dataclass(frozen=True)
class Reference:
    """What the PyTorch model says, in float32."""

    logits: NDArray[np.float32]  # [K,2] of No and Yes
    largest_activation: float  # magnitude, of all that goes into or comes out of a layer
    answer_share: float  # of the probability of all tokens that is No's and Yes's, mean of K
    likeliest: int  # id of the token that is the likeliest most often


def ask(
    checkpoint: Checkpoint,
    tokens: PromptTokens,
    grid: Grid,
    answer_ids: Sequence[int],
    query: NDArray[np.uint8],
    candidates: Sequence[NDArray[np.uint8]],
) -> Reference:
    """Ask about a query [3,H,W] and K candidates alike, one whole prompt a pair.

    Raises
    ------
    InputError
        The answers are not finite: the weights are damaged.
    """
    with _watched(checkpoint.model) as largest:
        rows = [
            _forward(checkpoint, tokens, grid, np.stack([query, candidate]))
            for candidate in candidates
        ]
    every = torch.stack(rows)
    if not every.isfinite().all():
        raise InputError(f"{checkpoint.folder}: the model's own answers are NaN or infinite")
    share = every.softmax(1)[:, list(answer_ids)].sum(1).mean()
    likeliest = every.argmax(1).mode().values
    logits: NDArray[np.float32] = every[:, list(answer_ids)].numpy()
    return Reference(logits, largest[0], float(share), int(likeliest))


@contextlib.contextmanager
def _watched(model: torch.nn.Module) -> Iterator[list[float]]:
    """Keep the largest magnitude of any layer's inputs and outputs, in a list of one."""
    largest = [0.0]

    def see(_module: Any, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        for value in (*inputs, *outputs):
            if torch.is_tensor(value) and value.is_floating_point():
                largest[0] = max(largest[0], float(value.abs().max()))

    handles = [module.register_forward_hook(see) for module in model.modules()]
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()


def _forward(
    checkpoint: Checkpoint, tokens: PromptTokens, grid: Grid, images: NDArray[np.uint8]
) -> Tensor:
    model, inputs = checkpoint.model, prompt_inputs(checkpoint, tokens, grid, images)
    with torch.inference_mode():
        logits: Tensor = model(**inputs, use_cache=False, logits_to_keep=1).logits
    return logits[0, -1].float()


def prompt_inputs(
    checkpoint: Checkpoint, tokens: PromptTokens, grid: Grid, images: NDArray[np.uint8]
) -> dict[str, Any]:
    """Return what the model's forward takes for one whole prompt about images [2,3,H,W]."""
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
    return inputs


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

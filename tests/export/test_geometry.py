"""Patch order, windows, positions and rotations against transformers' own functions."""

import functools
import importlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pil_processors import Qwen2VLImageProcessor
from random_checkpoint import shrunken_config
from transformers.models.qwen2_vl import modeling_qwen2_vl
from transformers.models.qwen3_vl import modeling_qwen3_vl

from murank_export.graphs.attention import rotary_tables, rotate
from murank_export.graphs.decoder import rope_frequencies
from murank_export.graphs.geometry import (
    Grid,
    interpolated_positions,
    patch_coordinates,
    patch_windows,
)
from murank_export.graphs.vision import VisionTower

try:  # transformers 5 has it in functions
    vision_utils: Any = importlib.import_module("transformers.vision_utils")
except ImportError:
    vision_utils = None
FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
PATCH = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16}
GRIDS = [(20, 10), (2, 2), (4, 18), (26, 8), (16, 16)]  # rows and columns of patches
SPECIAL = {
    "<|image_pad|>": 5, "<|video_pad|>": 6, "<|vision_start|>": 3, "<|vision_end|>": 4,
    "<|im_end|>": 2, "<|endoftext|>": 0,
}  # fmt: skip
Model = Callable[[str], Any]


@pytest.fixture(scope="module")
def model() -> Model:
    made: dict[str, Any] = {}

    def of(family: str) -> Any:
        if family not in made:
            config, kind = shrunken_config(family, "tiny", SPECIAL)
            torch.manual_seed(0)
            made[family] = kind(config).eval().requires_grad_(False)
        return made[family]

    return of


def grid_of(size: tuple[int, int], family: str = "qwen2_vl") -> tuple[Grid, torch.Tensor]:
    """The same grid in our words and in theirs."""
    return Grid(*size, PATCH[family], 2), torch.tensor([[1, *size]])


def their_angles(visual: Any, thw: torch.Tensor) -> torch.Tensor:
    """Angles [patches,head_dim/2], rows first."""
    if vision_utils is None:
        found: torch.Tensor = visual.rot_pos_emb(thw)
        return found
    places = vision_utils.get_vision_position_ids(thw, visual.spatial_merge_size)
    angles: torch.Tensor = (places[..., None] * visual.rotary_pos_emb.inv_freq).flatten(1)
    return angles


def their_windows(visual: Any, thw: torch.Tensor) -> Any:
    """Order of the vision tokens, and where a window ends among their patches."""
    if vision_utils is None:
        return visual.get_window_index(thw)
    return vision_utils.get_vision_window_index(
        thw, visual.spatial_merge_size, visual.window_size, visual.patch_size
    )


def their_positions(visual: Any, thw: torch.Tensor) -> torch.Tensor:
    """Interpolated position embeddings [patches,E]."""
    table = visual.pos_embed.weight
    if vision_utils is None:
        found: torch.Tensor = visual.fast_pos_embed_interpolate(thw)
        return found
    places, weights = vision_utils.get_vision_interpolation_indices_and_weights(
        thw, round(len(table) ** 0.5), align_corners=True, spatial_merge_size=2
    )
    resampled: torch.Tensor = (table[places] * weights[..., None]).sum(1)
    return resampled


@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_rotary_angles_of_patches(model: Model, family: str, size: tuple[int, int]) -> None:
    visual = model(family).model.visual
    grid, thw = grid_of(size, family)
    angles = patch_coordinates(grid)[..., None] * visual.rotary_pos_emb.inv_freq
    torch.testing.assert_close(angles.flatten(1), their_angles(visual, thw), atol=0, rtol=0)


@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_pixels_in_token_order(family: str, size: tuple[int, int]) -> None:
    """What the graph sees of an image is what the image processor gives."""
    grid, _ = grid_of(size, family)
    shape = (2, 3, grid.rows * grid.patch, grid.columns * grid.patch)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean, std = (0.48, 0.45, 0.4), (0.26, 0.27, 0.28)
    processor: Any = Qwen2VLImageProcessor(
        patch_size=grid.patch, image_mean=list(mean), image_std=list(std), do_resize=False
    )
    wanted = processor(list(images.transpose(0, 2, 3, 1)), return_tensors="pt")
    assert wanted["image_grid_thw"].tolist() == [[1, *size]] * 2
    frames = wanted["pixel_values"].reshape(2, grid.num_patches, 3, 2, grid.patch**2)
    tower = VisionTower(fresh_visual(family), grid, "fp32", mean=mean, std=std)
    found = tower._patches(torch.from_numpy(images)).reshape(frames[:, :, :, 0].shape)
    for frame in (0, 1):
        torch.testing.assert_close(found, frames[:, :, :, frame], atol=1e-6, rtol=0)


def fresh_visual(family: str) -> Any:
    """A vision module whose weights may be taken over."""
    config, kind = shrunken_config(family, "tiny", SPECIAL)
    return kind(config).model.visual


@pytest.mark.parametrize("size", [*GRIDS, (18, 6), (8, 8), (30, 34)])
@pytest.mark.parametrize("window", [56, 112])
def test_windows(model: Model, size: tuple[int, int], window: int) -> None:
    """The same patches see one another, at the ragged right and lower edges too."""
    visual = model("qwen2_5_vl").model.visual
    grid, thw = grid_of(size)
    visual.window_size = window
    order, bounds = their_windows(visual, thw)
    patches = (order[:, None] * 4 + torch.arange(4)).flatten()  # four patches stand together
    theirs = torch.empty(grid.num_patches, dtype=torch.long)
    for number, (start, end) in enumerate(pairwise(bounds)):
        theirs[patches[start:end]] = number
    ours = patch_windows(grid, window)
    torch.testing.assert_close(ours[:, None] == ours, theirs[:, None] == theirs)


@pytest.mark.parametrize("size", GRIDS)
def test_interpolated_positions(model: Model, size: tuple[int, int]) -> None:
    visual = model("qwen3_vl").model.visual
    grid, thw = grid_of(size, "qwen3_vl")
    found = interpolated_positions(visual.pos_embed.weight, grid)
    wanted = their_positions(visual, thw)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def qwen2_rotation(text: Any) -> Any:
    theirs = getattr(modeling_qwen2_vl, "apply_multimodal_rotary_pos_emb", None)
    if theirs is None:  # transformers 5 has put the axes together before
        return modeling_qwen2_vl.apply_rotary_pos_emb
    return functools.partial(theirs, mrope_section=text.config.rope_scaling["mrope_section"])


def their_rotation(family: str, text: Any, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Rotate [1,heads,S,D] by positions [3,1,S] as the family's attention does."""
    cos, sin = text.rotary_emb(x, position)
    if family == "qwen3_vl":
        rotated, _ = modeling_qwen3_vl.apply_rotary_pos_emb(x, x, cos, sin)
    else:
        rotated, _ = qwen2_rotation(text)(x, x, cos, sin)
    found: torch.Tensor = rotated
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_rotation_by_three_positions(model: Model, family: str) -> None:
    """Axes far apart from one another, so that a frequency of the wrong one shows."""
    text = model(family).model.language_model
    generator = torch.Generator().manual_seed(0)
    position = torch.randint(0, 900, (3, 1, 11), generator=generator)
    head_dim = 2 * len(text.rotary_emb.inv_freq)
    x = torch.randn(1, 2, 11, head_dim, generator=generator)
    inverse, axis = rope_frequencies(text.rotary_emb)
    assert sorted(set(axis.tolist())) == [0, 1, 2]
    angles = position[axis, 0].t() * inverse  # [S,D/2]
    found = rotate(x, *rotary_tables(angles))
    wanted = their_rotation(family, text, x, position)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)

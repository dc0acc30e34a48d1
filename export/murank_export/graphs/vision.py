"""Vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL for images of one fixed size.

images [B,3,H,W] uint8 -> vision tokens [B,levels,T,H]. Level 0 goes into the prompt; further levels
(Qwen3-VL's deepstack) are added to the hidden states behind the first decoder layers.
Because the size is fixed, rotary tables, windows and interpolated positions are constants.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from murank.folder.precision import Precision
from murank_export.graphs.attention import Heads, attention_of
from murank_export.graphs.geometry import (
    Grid,
    interpolated_positions,
    patch_coordinates,
    patch_windows,
)
from murank_export.graphs.layers import (
    Inputs,
    Linear,
    float_dtype,
    host_dtype,
    project,
    take_linear,
    take_norm,
)

_HIDDEN_WINDOW = -1e9  # added to scores across windows


class VisionTower(nn.Module):
    """Made from the `visual` module of a loaded checkpoint, whose weights it takes over.

    `inputs` (of its linear layers) are taken too. `portable`: see `attention_of`.
    """

    cos: Tensor
    sin: Tensor
    mean: Tensor
    std: Tensor
    positions: Tensor
    window_bias: Tensor

    def __init__(
        self,
        visual: Any,
        grid: Grid,
        precision: Precision,
        inputs: Inputs | None = None,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        portable: bool = False,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.dtype, self.host_dtype = float_dtype(precision), host_dtype(precision)
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))
        self.embed = _patch_embedding(visual.patch_embed.proj, self.dtype)
        angles = patch_coordinates(grid)[..., None] * visual.rotary_pos_emb.inv_freq.float()
        angles = angles.flatten(1)  # [patches,head_dim/2]: rows first, then columns
        heads = visual.blocks[0].attn.num_heads
        of = Heads(heads, heads, 2 * angles.shape[1])
        self.attention = attention_of(precision, of, portable=portable)
        cos, sin = self.attention.rotation(angles)
        self.register_buffer("cos", cos.to(self.dtype))
        self.register_buffer("sin", sin.to(self.dtype))
        self._set_positions(visual)
        windowed = self._set_windows(visual)
        self.blocks = nn.ModuleList(
            _Block(block, precision, inputs, windowed=index in windowed)
            for index, block in enumerate(visual.blocks)
        )
        self.merger = _Merger(visual.merger, grid.merge**2, precision, inputs)
        self.deepstack_after = list(getattr(visual, "deepstack_visual_indexes", []))
        self.deepstack = nn.ModuleList(
            _Merger(merger, grid.merge**2, precision, inputs)
            for merger in getattr(visual, "deepstack_merger_list", [])
        )

    @property
    def levels(self) -> int:
        """Vision tokens an image has for each place in the prompt."""
        return 1 + len(self.deepstack)

    def _set_positions(self, visual: Any) -> None:
        """Learned position embeddings (Qwen3-VL), zero elsewhere."""
        table = getattr(visual, "pos_embed", None)
        self.has_positions = table is not None
        if table is not None:
            positions = interpolated_positions(table.weight.detach(), self.grid)
            self.register_buffer("positions", positions.to(self.dtype))

    def _set_windows(self, visual: Any) -> set[int]:
        """Prepare windowed attention (Qwen2.5-VL); return the blocks that have it."""
        full = getattr(visual, "fullatt_block_indexes", None)
        if full is None:
            return set()
        window = patch_windows(self.grid, visual.window_size)
        apart = window[:, None] != window[None, :]
        bias = torch.zeros(apart.shape).masked_fill(apart, _HIDDEN_WINDOW)
        self.register_buffer("window_bias", bias)
        return set(range(len(visual.blocks))) - set(full)

    def forward(self, images: Tensor) -> Tensor:
        """[B,3,H,W] uint8 RGB -> [B,levels,T,H] of `host_dtype`."""
        x = self.embed(self._patches(images))
        if self.has_positions:
            x = x + self.positions
        levels: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = cast(_Block, block)(x, self)
            if index in self.deepstack_after:
                levels.append(self.deepstack[self.deepstack_after.index(index)](x))
        return torch.stack([self.merger(x), *levels], 1).to(self.host_dtype)

    def _patches(self, images: Tensor) -> Tensor:
        """[B,3,H,W] -> [B,patches,3*patch*patch], normalised, in token order."""
        grid = self.grid
        x = ((images.to(torch.float32) / 255.0 - self.mean) / self.std).to(self.dtype)
        down, right = (grid.token_rows, grid.merge, grid.patch), (grid.token_columns, grid.merge)
        x = x.reshape(x.shape[0], 3, *down, *right, grid.patch)
        return x.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(
            x.shape[0], grid.num_patches, 3 * grid.patch**2
        )


def _patch_embedding(convolution: Any, dtype: torch.dtype) -> Linear:
    """A still image is two equal frames to these models: their two kernels add up to one."""
    weight = convolution.weight.detach().float().sum(2).flatten(1)
    bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)
    return Linear(weight.to(dtype), bias)


class _Block(nn.Module):
    """Attention within an image, then the MLP (gated or not)."""

    def __init__(
        self, block: Any, precision: Precision, inputs: Inputs | None, *, windowed: bool
    ) -> None:
        super().__init__()
        self.windowed = windowed
        self.norm1 = take_norm(block.norm1, precision)
        self.norm2 = take_norm(block.norm2, precision)
        attention, mlp = block.attn, block.mlp
        width = attention.proj.weight.shape[1]
        self.qkv = nn.ModuleList(
            take_linear(
                attention.qkv, precision, inputs, slice(i * width, (i + 1) * width), last=i == 2
            )
            for i in range(3)
        )
        self.out = take_linear(attention.proj, precision, inputs)
        self.gated = hasattr(mlp, "gate_proj")
        first = ("gate_proj", "up_proj") if self.gated else ("fc1", "linear_fc1")
        second = ("down_proj",) if self.gated else ("fc2", "linear_fc2")
        self.first = nn.ModuleList(
            take_linear(getattr(mlp, name), precision, inputs)
            for name in first
            if hasattr(mlp, name)
        )
        (down,) = (getattr(mlp, name) for name in second if hasattr(mlp, name))
        self.second = take_linear(down, precision, inputs)
        self.activation = mlp.act if hasattr(mlp, "act") else mlp.act_fn

    def forward(self, x: Tensor, tower: VisionTower) -> Tensor:
        """[B,patches,E] -> the same shape."""
        x = x + self.out(self._attend(self.norm1(x), tower))
        hidden = project(self.norm2(x), list(self.first))
        y = self.activation(hidden[0])
        return cast(Tensor, x + self.second(y * hidden[1] if self.gated else y))

    def _attend(self, x: Tensor, tower: VisionTower) -> Tensor:
        of = tower.attention.heads
        heads = (*x.shape[:2], of.queries, of.width)
        q, k, v = (part.reshape(heads) for part in project(x, list(self.qkv)))
        bias = tower.window_bias if self.windowed else None
        return tower.attention.within(q, k, v, (tower.cos, tower.sin), bias)


class _Merger(nn.Module):
    """Patches of one token, side by side, through a two-layer MLP into the decoder's width."""

    def __init__(
        self, merger: Any, patches: int, precision: Precision, inputs: Inputs | None
    ) -> None:
        super().__init__()
        self.patches = patches
        if hasattr(merger, "mlp"):  # Qwen2-VL, Qwen2.5-VL
            norm, first, second = merger.ln_q, merger.mlp[0], merger.mlp[2]
            self.norm_merged = False
        else:  # Qwen3-VL
            norm, first, second = merger.norm, merger.linear_fc1, merger.linear_fc2
            self.norm_merged = bool(merger.use_postshuffle_norm)
        self.norm = take_norm(norm, precision)
        self.first = take_linear(first, precision, inputs)
        self.second = take_linear(second, precision, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B,patches,E] -> [B,T,H]."""
        merged = (x.shape[0], x.shape[1] // self.patches, x.shape[2] * self.patches)
        x = self.norm(x.reshape(merged)) if self.norm_merged else self.norm(x).reshape(merged)
        return cast(Tensor, self.second(nn.functional.gelu(self.first(x))))

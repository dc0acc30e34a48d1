"""Where patches and tokens are: patch order, windows and positions of images of one fixed size."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Patches of an image; `merge` x `merge` neighbours become one vision token."""

    rows: int
    columns: int
    patch: int  # pixels of a patch's side
    merge: int

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return self.rows * self.columns

    @property
    def token_rows(self) -> int:
        """Vision tokens of a column."""
        return self.rows // self.merge

    @property
    def token_columns(self) -> int:
        """Vision tokens of a row."""
        return self.columns // self.merge

    @property
    def num_tokens(self) -> int:
        """Vision tokens of an image."""
        return self.token_rows * self.token_columns

    def in_token_order(self, per_patch: Tensor) -> Tensor:
        """[rows,columns,...] -> [patches,...]: patches of one token stand together."""
        shape = (self.token_rows, self.merge, self.token_columns, self.merge, *per_patch.shape[2:])
        return per_patch.reshape(shape).transpose(1, 2).reshape(-1, *per_patch.shape[2:])


def patch_coordinates(grid: Grid) -> Tensor:
    """Return row and column of each patch, [patches,2], in token order."""
    rows, columns = torch.arange(grid.rows), torch.arange(grid.columns)
    return grid.in_token_order(torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1))


def patch_windows(grid: Grid, window_pixels: int) -> Tensor:
    """Return the attention window each patch is in, [patches]."""
    side = window_pixels // grid.merge // grid.patch * grid.merge  # patches of a window's side
    rows, columns = patch_coordinates(grid).unbind(-1)
    return rows // side * grid.columns + columns // side


def interpolated_positions(table: Tensor, grid: Grid) -> Tensor:
    """Resample a square table of position embeddings, [side*side,E], bilinearly: [patches,E]."""
    side = round(table.shape[0] ** 0.5)
    down, right = torch.linspace(0, side - 1, grid.rows), torch.linspace(0, side - 1, grid.columns)
    total = torch.zeros(grid.rows, grid.columns, table.shape[1])
    for row, row_weight in _neighbours(down, side):
        for column, column_weight in _neighbours(right, side):
            weight = row_weight[:, None] * column_weight[None]
            total += table[row[:, None] * side + column[None]].float() * weight[..., None]
    return grid.in_token_order(total)


def _neighbours(places: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    below = places.long()
    share = places - below
    return [(below, 1 - share), ((below + 1).clamp(max=side - 1), share)]


def token_positions(is_image: list[bool], grid: Grid) -> Tensor:
    """Return M-RoPE positions (time, row, column) of a prompt's tokens, [3,tokens].

    Text advances all three together. The tokens of an image keep the time at which it begins and
    count rows and columns from there; what follows begins after the larger of the two counts.
    """
    parts: list[Tensor] = []
    start = place = 0
    while place < len(is_image):
        if not is_image[place]:
            parts.append(torch.full((3, 1), start))
            start, place = start + 1, place + 1
            continue
        rows, columns = torch.arange(grid.token_rows), torch.arange(grid.token_columns)
        time = torch.zeros(grid.num_tokens, dtype=torch.long)
        row, column = torch.meshgrid(rows, columns, indexing="ij")
        parts.append(torch.stack([time, row.reshape(-1), column.reshape(-1)]) + start)
        start += max(grid.token_rows, grid.token_columns)
        place += grid.num_tokens
    return torch.cat(parts, 1)

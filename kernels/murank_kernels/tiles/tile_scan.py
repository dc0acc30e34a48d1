"""Tiles of distances offered to the lists of their rows and of their columns, while in cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock, local

import numpy as np

from murank_kernels._types import F32, I32
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled
from murank_kernels.loops.parallel import Progress
from murank_kernels.loops.vector import WORD, flag_not_above, make_flags, update_maxima
from murank_kernels.tiles.distances import DistanceTiles
from murank_kernels.tiles.lists import Lists, offer

TILE = 512  # rows and columns of a tile: 1 MiB of float32, a core's share of cache
Corner = tuple[int, int]
"""First row and first column of a tile."""
Finished = Callable[[int, int, F32], None]
"""(first row, first column, tile): told of each finished tile."""


@compiled
def _scan(
    tile: F32,
    first_row: int,
    first_column: int,
    cameras: I32,
    distances: F32,
    indices: I32,
    other_distances: F32,
    other_indices: I32,
    row_max: F32,
) -> None:
    """Offer each entry above the diagonal to the lists of its row and its column.

    `cameras` empty: one list a row. Else items of another camera go to the other list, and an
    entry is looked at when it might enter either.
    """
    num_rows, num_columns = tile.shape
    last = distances.shape[1] - 1
    split = cameras.shape[0] > 0
    maxima = row_max.view(np.int32)
    column_max = maxima[first_column : first_column + num_columns]
    bounds = np.empty(num_columns, np.float32)
    for t in range(num_columns):
        bounds[t] = distances[first_column + t, last]
        if split:
            bounds[t] = max(bounds[t], other_distances[first_column + t, last])
    flags = make_flags(num_columns)
    words = flags.view(np.uint64)
    for r in range(num_rows):
        i = first_row + r
        row = tile[r]
        bound = distances[i, last]
        if split:
            bound = max(bound, other_distances[i, last])
        maxima[i] = max(maxima[i], update_maxima(row.view(np.int32), column_max))
        flag_not_above(row, bounds, bound, flags)
        for word in range(words.shape[0]):
            if words[word] == 0:
                continue
            for t in range(word * WORD, (word + 1) * WORD):
                j = first_column + t
                if flags[t] == 0 or j <= i:
                    continue
                if split and cameras[i] != cameras[j]:
                    near, who = other_distances, other_indices
                else:
                    near, who = distances, indices
                offer(near[i], who[i], row[t], j)
                offer(near[j], who[j], row[t], i)
                bounds[t] = distances[j, last]
                if split:
                    bounds[t] = max(bounds[t], other_distances[j, last])


@dataclass(frozen=True)
class TileScan:
    """Tiles of these distances, and the lists that they are offered to."""

    source: DistanceTiles
    cameras: I32  # [N], or empty: one list a row
    lists: Lists
    _own: local = field(default_factory=local)  # one tile of memory a worker

    def run(
        self, corners: Sequence[Corner], progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> None:  # fmt: skip
        """Make and offer the tiles at these corners, on or above the diagonal, in any order."""
        num_rows = len(self.source.features)
        locks = [Lock() for _ in range(-(-num_rows // TILE))]

        def one_tile(corner: Corner) -> None:
            row, column = corner
            tile = self._made(row, column)
            if finished is not None:
                finished(row, column, tile)
            low, high = locks[row // TILE], locks[column // TILE]
            with low:
                if high is low:
                    self._offer(tile, row, column)
                else:
                    with high:  # always the lower block first, so no two workers wait in a ring
                        self._offer(tile, row, column)

        parallel.run(one_tile, corners, "neighbours", progress)

    def _made(self, row: int, column: int) -> F32:
        num_rows = len(self.source.features)
        height, width = min(num_rows, row + TILE) - row, min(num_rows, column + TILE) - column
        if not hasattr(self._own, "tile"):
            self._own.tile = np.empty(TILE * TILE, np.float32)
        tile: F32 = self._own.tile[: height * width].reshape(height, width)
        self.source.tile(slice(row, row + height), column, column + width, out=tile)
        return tile

    def _offer(self, tile: F32, row: int, column: int) -> None:
        lists = self.lists
        _scan(
            tile, row, column, self.cameras, lists.distances, lists.indices,
            lists.other_distances, lists.other_indices, lists.row_max,
        )  # fmt: skip

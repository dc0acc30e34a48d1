"""Fused squared Euclidean distances: tiles by a matrix product, and single pairs.

A matrix product gives |a|² + |b|² - 2ab, which loses the digits of a small distance. Small entries
of a tile, and pairs that a result hangs on (neighbours, weights), are taken from the difference of
the two rows instead: they are few. Equal rows get exactly 0, and the value of a pair does not
depend on which of the two comes first.
"""

from dataclasses import dataclass

import numpy as np

from murank_kernels._types import F32, I32, I64
from murank_kernels.fusion.changes import Changes
from murank_kernels.loops.compiled import compiled
from murank_kernels.loops.vector import any_not_above


@compiled(fastmath={"reassoc", "contract", "nsz"})
def squared_distance(a: F32, b: F32) -> np.float32:
    """Squared Euclidean distance of two vectors."""
    total = np.float32(0)
    for t in range(a.shape[0]):
        difference = a[t] - b[t]
        total += difference * difference
    return total


NEAR = np.float32(0.01)  # share of a row's squared length under which a product is not trusted


@compiled
def _from_products(row: F32, row_norm: np.float32, column_norms: F32) -> None:
    """Turn products into squared distances, in place."""
    for t in range(row.shape[0]):
        row[t] = max(row_norm + column_norms[t] - np.float32(2) * row[t], np.float32(0))


@compiled
def _first_from(indices: I32, low: int, high: int, j: int) -> int:
    """First place in low..high, where indices ascend, with an index of at least j."""
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < j:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _finish_tile(
    tile: F32,
    features: F32,
    norms: F32,
    rows: I64,
    first_column: int,
    change_indptr: I64,
    change_indices: I32,
    change_values: F32,
) -> None:
    """Turn a tile of products into fused squared distances, in place."""
    width = tile.shape[1]
    near = NEAR * norms[rows]
    near_bits = near.view(np.int32)
    for r in range(tile.shape[0]):
        i = rows[r]
        row = tile[r]
        _from_products(row, norms[i], norms[first_column : first_column + width])
        if any_not_above(row.view(np.int32), near_bits[r]):
            for t in range(width):
                if row[t] <= near[r]:
                    row[t] = squared_distance(features[i], features[first_column + t])
        low, high = change_indptr[i], change_indptr[i + 1]
        for p in range(_first_from(change_indices, low, high, first_column), high):
            if change_indices[p] >= first_column + width:
                break
            row[change_indices[p] - first_column] = change_values[p]


def squared_norms(features: F32) -> F32:
    """Squared length of each row, [N]."""
    norms: F32 = np.einsum("ij,ij->i", features, features, dtype=np.float64).astype(np.float32)
    return norms


@dataclass(frozen=True)
class DistanceTiles:
    """Any rectangle of the N x N fused squared distances."""

    features: F32  # [N,D]
    norms: F32  # [N] squared length of each row
    changes: Changes
    _numbers: I64  # [N] 0..N-1

    @classmethod
    def of(cls, features: F32, changes: Changes) -> "DistanceTiles":
        """Build, computing the norms."""
        return cls(features, squared_norms(features), changes, np.arange(len(features)))

    def tile(
        self, rows: slice | I64, first_column: int, stop_column: int, out: F32 | None = None
    ) -> F32:
        """Squared distances [len(rows), columns] of a range or a list of rows to a range."""
        columns = self.features[first_column:stop_column].T
        products: F32 = np.matmul(self.features[rows], columns, out=out)
        numbers = self._numbers[rows] if isinstance(rows, slice) else rows
        arrays = (self.changes.indptr, self.changes.indices, self.changes.values)
        _finish_tile(products, self.features, self.norms, numbers, first_column, *arrays)
        return products


@compiled
def changed_value(indptr: I64, indices: I32, values: F32, i: int, j: int) -> np.float32:
    """Squared fused distance of (i, j), or -1 where fusion leaves that pair alone."""
    place = _first_from(indices, indptr[i], indptr[i + 1], j)
    if place < indptr[i + 1] and indices[place] == j:
        value: np.float32 = values[place]
        return value
    return np.float32(-1)


@compiled
def _fill(
    features: F32,
    start: int,
    stop: int,
    indptr: I64,
    indices: I32,
    change_indptr: I64,
    change_indices: I32,
    change_values: F32,
    out: F32,
) -> None:
    for i in range(start, stop):
        for p in range(indptr[i], indptr[i + 1]):
            j = indices[p]
            value = changed_value(change_indptr, change_indices, change_values, i, j)
            if value < 0:
                value = squared_distance(features[i], features[j])
            out[p] = value


def fill_squared_distances(
    features: F32, rows: tuple[int, int], indptr: I64, indices: I32, changes: Changes, out: F32
) -> None:
    """Write d² of each stored pair (i, indices[p]) with i in the range `rows` to out[p]."""
    start, stop = rows
    arrays = (changes.indptr, changes.indices, changes.values)
    _fill(features, start, stop, indptr, indices, *arrays, out)

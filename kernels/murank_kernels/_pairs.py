"""Distances of named pairs, straight from the difference of two rows.

A matrix product gives |a|² + |b|² - 2ab, which loses the digits of a small distance. Pairs that a
result hangs on (neighbours, weights) are few, so they are computed again without that loss. Equal
rows get exactly 0, and the value of a pair does not depend on which of the two comes first.
"""

import numpy as np
from numba import njit

from murank_kernels._fusion import Changes
from murank_kernels._types import F32, I32, I64


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def squared_distance(a: F32, b: F32) -> np.float32:
    """Squared Euclidean distance of two vectors."""
    total = np.float32(0)
    for t in range(a.shape[0]):
        difference = a[t] - b[t]
        total += difference * difference
    return total


@njit(nogil=True, cache=True)
def changed_value(indptr: I64, indices: I32, values: F32, i: int, j: int) -> np.float32:
    """Squared fused distance of (i, j), or -1 where fusion leaves that pair alone."""
    low, high = indptr[i], indptr[i + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < j:
            low = middle + 1
        else:
            high = middle
    if low < indptr[i + 1] and indices[low] == j:
        return values[low]
    return np.float32(-1)


@njit(nogil=True, cache=True)
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
    """Write d² of each pair (i, indices[p]), p in indptr[i]..indptr[i+1], i in `rows`, to out[p]."""
    start, stop = rows
    arrays = (changes.indptr, changes.indices, changes.values)
    _fill(features, start, stop, indptr, indices, *arrays, out)

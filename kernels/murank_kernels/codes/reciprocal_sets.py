"""Reciprocal neighbour sets and their expansion: which items a row is encoded by."""

from collections.abc import Callable

import numpy as np

from murank_kernels._types import I32, I64
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled

ROWS_EACH = 256  # rows that a worker takes at a time
Sets = tuple[I32, I32]  # members [N,k], of which the first sizes [N] count


@compiled
def _reciprocal(neighbors: I32, k: int, start: int, stop: int, sets: I32, sizes: I32) -> None:
    """Recip(i,k): the j among the first k of i that have i among their first k."""
    for i in range(start, stop):
        size = 0
        for a in range(k):
            j = neighbors[i, a]
            for b in range(k):
                if neighbors[j, b] == i:
                    sets[i, size] = j
                    size += 1
                    break
        sizes[i] = size


def reciprocal_sets(neighbors: I32, k: int) -> Sets:
    """Reciprocal neighbours of each row.

    Parameters
    ----------
    neighbors : [N,L] int32, nearest first
    k : how many of them count; clipped to L.

    Returns
    -------
    (members [N,k], sizes [N]) int32; a set may be empty.
    """
    k = min(k, neighbors.shape[1])
    sets = np.empty((neighbors.shape[0], k), np.int32)
    sizes = np.empty(neighbors.shape[0], np.int32)

    def rows(part: tuple[int, int]) -> None:
        _reciprocal(neighbors, k, *part, sets, sizes)

    parallel.run(rows, parallel.row_ranges(len(sizes), ROWS_EACH), "reciprocal neighbours")
    return sets, sizes


@compiled
def _expand(
    sets: I32,
    sizes: I32,
    half_sets: I32,
    half_sizes: I32,
    start: int,
    stop: int,
    out: I32,
    out_sizes: I64,
) -> None:
    num_rows = sets.shape[0]
    in_set = np.full(num_rows, -1, np.int32)  # in_set[j] == i: j is in R(i)
    taken = np.full(num_rows, -1, np.int32)  # taken[j] == i: j is in R*(i)
    for i in range(start, stop):
        size = sizes[i]
        for a in range(size):
            j = sets[i, a]
            in_set[j] = i
            taken[j] = i
            out[i - start, a] = j
        count = size
        for a in range(size):
            c = sets[i, a]
            shared = 0
            for b in range(half_sizes[c]):
                if in_set[half_sets[c, b]] == i:
                    shared += 1
            if 3 * shared > 2 * half_sizes[c]:
                for b in range(half_sizes[c]):
                    j = half_sets[c, b]
                    if taken[j] != i:
                        taken[j] = i
                        out[i - start, count] = j
                        count += 1
        out[i - start, :count].sort()
        out_sizes[i] = count


@compiled
def _unite(
    sets: I32,
    sizes: I32,
    other_sets: I32,
    other_sizes: I32,
    start: int,
    stop: int,
    out: I32,
    out_sizes: I64,
) -> None:
    for i in range(start, stop):
        count = sizes[i]
        for a in range(count):
            out[i - start, a] = sets[i, a]
        for b in range(other_sizes[i]):
            j = other_sets[i, b]
            known = False
            for a in range(sizes[i]):
                if sets[i, a] == j:
                    known = True
                    break
            if not known:
                out[i - start, count] = j
                count += 1
        out[i - start, :count].sort()
        out_sizes[i] = count


def _joined(
    join: Callable[..., None], own: Sets, others: Sets, width: int, stage: str
) -> tuple[I64, I32]:
    """Join two sets of each row to one of at most `width` members, in CSR."""
    sizes = np.empty(len(own[1]), np.int64)
    parts: dict[int, I32] = {}

    def rows(part: tuple[int, int]) -> None:
        start, stop = part
        out = np.empty((stop - start, width), np.int32)
        join(*own, *others, start, stop, out, sizes)
        parts[start] = out[np.arange(width) < sizes[start:stop, None]]

    parallel.run(rows, parallel.row_ranges(len(sizes), ROWS_EACH), stage)
    indptr = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=indptr[1:])
    return indptr, np.concatenate([parts[start] for start in sorted(parts)])


def expanded_sets(neighbors: I32, k1: int) -> tuple[I64, I32]:
    """R*(i): k1-reciprocal neighbours, with those of half the size that mostly agree (2/3 rule).

    Returns (indptr [N+1] int64, indices int32, ascending within a row).

    Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", 2017.
    """
    own, half = reciprocal_sets(neighbors, k1 + 1), reciprocal_sets(neighbors, round(k1 / 2) + 1)
    width = min(len(neighbors), own[0].shape[1] * (1 + half[0].shape[1]))
    return _joined(_expand, own, half, width, "expansion")


def united_sets(neighbors: I32, k: int, other: I32, other_k: int) -> tuple[I64, I32]:
    """R*(i) of CA-Jaccard: reciprocal neighbours within the camera and across cameras.

    Returns (indptr [N+1] int64, indices int32, ascending within a row).
    """
    own, others = reciprocal_sets(neighbors, k), reciprocal_sets(other, other_k)
    width = own[0].shape[1] + others[0].shape[1]
    return _joined(_unite, own, others, width, "camera-aware neighbours")

"""The sparse code V of each row: weights of its neighbours, then local query expansion."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from murank_kernels._types import F32, I32, I64
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled

ROWS_EACH = 1024  # rows that a worker takes at a time


FLOOR = np.float32(1e-8)
"""MUSE clips distances here, so equal items get nd = 1. Zhong's 0/0 is defined as nd = 0."""


@dataclass(frozen=True)
class Scale:
    """How a squared distance becomes the normalised distance nd, row by row."""

    row_max: F32  # [N] largest distance of the row, in the unit of nd
    squared: bool  # nd from squared distances (Zhong) or from their roots (MUSE)

    @classmethod
    def of(cls, row_max_squared: F32, *, squared: bool) -> "Scale":
        """Build from the largest squared distances."""
        if squared:
            return cls(row_max_squared, squared)
        return cls(np.maximum(np.sqrt(row_max_squared), FLOOR), squared)


@dataclass(frozen=True)
class Codes:
    """Sparse rows as CSR: the codes V [N,N], or their transpose."""

    indptr: I64  # [N+1]
    indices: I32  # [nnz]
    data: F32  # [nnz] weights; a row of V sums to 1, or is empty


@compiled
def normalised(distance_squared: np.float32, row_max: np.float32, squared: bool) -> np.float32:
    """Distance as a share of the row's largest."""
    if squared:
        if row_max == 0:
            return np.float32(0)
        return distance_squared / row_max
    return max(np.float32(np.sqrt(distance_squared)), FLOOR) / row_max


@compiled
def _weigh(indptr: I64, data: F32, row_max: F32, squared: bool, start: int, stop: int) -> None:
    for i in range(start, stop):
        total = np.float32(0)
        for p in range(indptr[i], indptr[i + 1]):
            data[p] = np.exp(-normalised(data[p], row_max[i], squared))
            total += data[p]
        for p in range(indptr[i], indptr[i + 1]):
            data[p] /= total


FillSquaredDistances = Callable[[tuple[int, int], I64, I32, F32], None]
"""(rows, indptr, indices, out): write d² of each stored pair of these rows to out."""


def encode(indptr: I64, indices: I32, fill: FillSquaredDistances, scale: Scale) -> Codes:
    """V[i,j] = exp(-nd[i,j]) / sum over R*(i), for j in R*(i)."""
    data = np.empty(len(indices), np.float32)

    def rows(part: tuple[int, int]) -> None:
        fill(part, indptr, indices, data)
        _weigh(indptr, data, scale.row_max, scale.squared, *part)

    parallel.run(rows, parallel.row_ranges(len(indptr) - 1, ROWS_EACH), "encoding")
    return Codes(indptr, indices, data)


@compiled
def _add_rows(
    added: I32,
    divisor: np.float32,
    indptr: I64,
    indices: I32,
    data: F32,
    start: int,
    stop: int,
    sizes: I64,
    out_indices: I32,
    out_data: F32,
) -> None:
    num_rows = indptr.shape[0] - 1
    width = added.shape[1]
    place = np.full(num_rows, -1, np.int64)
    end = 0
    for i in range(start, stop):
        begin = end
        for a in range(width):
            r = added[i, a]
            for b in range(indptr[r], indptr[r + 1]):
                j = indices[b]
                if place[j] < begin:
                    place[j] = end
                    out_indices[end] = j
                    out_data[end] = data[b]
                    end += 1
                else:
                    out_data[place[j]] += data[b]
        for p in range(begin, end):
            out_data[p] /= divisor
        sizes[i] = end - begin


def expand_queries(codes: Codes, averaged: I32) -> Codes:
    """Local query expansion: V'[i] = mean of the rows V[r], r in averaged[i], [N,m] int32."""
    return add_rows(codes, averaged, divisor=averaged.shape[1])


def add_rows(codes: Codes, added: I32, *, divisor: int = 1) -> Codes:
    """Sum of the rows r in added[i] over `divisor`, for each i; a row named twice counts twice.

    Parameters
    ----------
    added : [N,m] int32
    """
    num_rows = len(added)
    added = np.ascontiguousarray(added)  # or the kernel would be compiled for strides, too
    lengths = np.diff(codes.indptr)
    sizes = np.empty(num_rows, np.int64)
    parts: dict[int, tuple[I32, F32]] = {}

    def rows(part: tuple[int, int]) -> None:
        start, stop = part
        room = int(lengths[added[start:stop]].sum())
        indices, data = np.empty(room, np.int32), np.empty(room, np.float32)
        _add_rows(
            added, np.float32(divisor), codes.indptr, codes.indices, codes.data,
            start, stop, sizes, indices, data,
        )  # fmt: skip
        used = int(sizes[start:stop].sum())
        parts[start] = (indices[:used].copy(), data[:used].copy())

    parallel.run(rows, parallel.row_ranges(num_rows, ROWS_EACH), "query expansion")
    indptr = np.zeros(num_rows + 1, np.int64)
    np.cumsum(sizes, out=indptr[1:])
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    for start in sorted(parts):
        part_indices, part_data = parts.pop(start)
        low = indptr[start]
        indices[low : low + len(part_indices)] = part_indices
        data[low : low + len(part_data)] = part_data
    return Codes(indptr, indices, data)


@compiled
def _transpose(
    indptr: I64, indices: I32, data: F32, first_row: int, out_indptr: I64
) -> tuple[I32, F32]:
    num_rows = indptr.shape[0] - 1
    for p in range(indptr[first_row], indptr[num_rows]):
        out_indptr[indices[p] + 1] += 1
    for j in range(out_indptr.shape[0] - 1):
        out_indptr[j + 1] += out_indptr[j]
    place = out_indptr[:-1].copy()
    out_indices = np.empty(out_indptr[-1], np.int32)
    out_data = np.empty(out_indptr[-1], data.dtype)
    for i in range(first_row, num_rows):
        for p in range(indptr[i], indptr[i + 1]):
            q = place[indices[p]]
            out_indices[q] = i - first_row
            out_data[q] = data[p]
            place[indices[p]] = q + 1
    return out_indices, out_data


def gallery_columns(codes: Codes, num_query: int) -> Codes:
    """Inverted index: for each of the N columns, the gallery items (from 0) that hold it."""
    indptr = np.zeros(len(codes.indptr), np.int64)
    indices, data = _transpose(codes.indptr, codes.indices, codes.data, num_query, indptr)
    return Codes(indptr, indices, data)

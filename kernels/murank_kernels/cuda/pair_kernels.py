"""Kernels on rows of features: their lengths, and distances of single pairs.

`lanes` threads share a pair: neighbouring threads read neighbouring values of a row.
"""

import math

import numpy as np
from numba import float32, float64

from murank_kernels._types import F32, F64, I32, I64
from murank_kernels.cuda.kernel import cuda, device_function, kernel
from murank_kernels.fusion.changes import SCALE
from murank_kernels.tiles.distances import changed_value
from murank_kernels.tiles.lists import sort_rows

_changed_value = device_function(changed_value)
_sort_rows = device_function(sort_rows)


@kernel("void(f4[:,::1], f8[::1])")
def row_squares(features: F32, squares: F64) -> None:
    """Squared length of each row, summed in float64. A block a row."""
    sums = cuda.shared.array(0, float64)
    i, t = cuda.blockIdx.x, cuda.threadIdx.x
    total = 0.0
    for d in range(t, features.shape[1], cuda.blockDim.x):
        total += np.float64(features[i, d]) * np.float64(features[i, d])
    sums[t] = total
    cuda.syncthreads()
    if t == 0:
        total = 0.0
        for other in range(cuda.blockDim.x):
            total += sums[other]
        squares[i] = total


@kernel("void(f4[:,::1], i8[::1], i4[::1], i8[::1], i4[::1], f4[::1], i8, f4[::1])")
def pair_squares(
    features: F32,
    indptr: I64,
    indices: I32,
    change_indptr: I64,
    change_indices: I32,
    change_values: F32,
    lanes: int,
    out: F32,
) -> None:
    """Fused squared distance of each stored pair (i, indices[p]). A block a row."""
    sums = cuda.shared.array(0, float32)
    i, t = cuda.blockIdx.x, cuda.threadIdx.x
    lane = t % lanes
    stop = indptr[i + 1]
    for start in range(indptr[i], stop, cuda.blockDim.x // lanes):
        p = start + t // lanes
        total = np.float32(0)
        if p < stop:
            j = indices[p]
            for d in range(lane, features.shape[1], lanes):
                difference = features[i, d] - features[j, d]
                total += difference * difference
        sums[t] = total
        cuda.syncthreads()
        if p < stop and lane == 0:
            for other in range(t + 1, t + lanes):
                total += sums[other]
            value = _changed_value(change_indptr, change_indices, change_values, i, indices[p])
            out[p] = total if value < 0 else value
        cuda.syncthreads()


@kernel("void(f4[:,::1], i8[::1], i8[::1], f8[::1], f8, i8, f4[::1])")
def fused_squares(
    features: F32, rows: I64, columns: I64, mu: F64, alpha: float, lanes: int, out: F32
) -> None:
    """Square of (1 - alpha) d + alpha * scale * mu of each pair of rows."""
    sums = cuda.shared.array(0, float64)
    t = cuda.threadIdx.x
    lane = t % lanes
    p = cuda.blockIdx.x * (cuda.blockDim.x // lanes) + t // lanes
    total = 0.0
    if p < rows.shape[0]:
        for d in range(lane, features.shape[1], lanes):
            difference = np.float64(features[rows[p], d] - features[columns[p], d])
            total += difference * difference
    sums[t] = total
    cuda.syncthreads()
    if p < rows.shape[0] and lane == 0:
        for other in range(t + 1, t + lanes):
            total += sums[other]
        fused = (1 - alpha) * math.sqrt(total) + alpha * SCALE * mu[p]
        out[p] = fused * fused


@kernel("void(f4[:,::1], i4[:,::1])")
def sort_lists(distances: F32, indices: I32) -> None:
    """Sort nearly sorted lists by (distance, index). A thread a row."""
    i = cuda.grid(1)
    if i < distances.shape[0]:
        _sort_rows(distances, indices, i, i + 1)

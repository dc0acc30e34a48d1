"""Kernels that sum distances to expanded neighbours."""

import math

import numpy as np

from murank_kernels._types import F32, I32
from murank_kernels.cuda.kernel import cuda, kernel


@kernel("void(f4[:,::1], i4[:,::1], i8, f4[:,::1])")
def add_members(tile: F32, places: I32, first: int, sums: F32) -> None:
    """sums[r] += roots of the tile's rows that places[r] names, from `first` on. A block a query.

    Each thread owns its columns and adds in the order of `places`.
    """
    r = cuda.blockIdx.x
    for a in range(places.shape[1]):
        m = places[r, a] - first
        if 0 <= m < tile.shape[0]:
            for g in range(cuda.threadIdx.x, sums.shape[1], cuda.blockDim.x):
                sums[r, g] += math.sqrt(tile[m, g])


@kernel("void(f4[:,::1], i4[:,::1], i8, f4[:,::1])")
def add_gathered(distances: F32, expanded: I32, num_query: int, sums: F32) -> None:
    """sums[r,g] += distances of query row r to neighbours of gallery item g. A block a query."""
    r = cuda.blockIdx.x
    for g in range(cuda.threadIdx.x, sums.shape[1], cuda.blockDim.x):
        total = np.float32(0)
        for a in range(expanded.shape[1]):
            total += distances[r, expanded[num_query + g, a]]
        sums[r, g] += total

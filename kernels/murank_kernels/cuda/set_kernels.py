"""Kernels that make reciprocal neighbour sets, unite and expand them.

A set is a list of neighbours and a flag for each: 1 where the neighbourhood is mutual. Kernels that
write CSR run twice: with `fill` false they write the size of each row to `indptr`, then, when these
are summed up, the members to `out`.
"""

import numpy as np
from numba import int32
from numpy.typing import NDArray

from murank_kernels._types import F32, I32, I64
from murank_kernels.cuda.kernel import cuda, device_function, kernel
from murank_kernels.tiles.camera_lists import append_list, merge_lists

_append = device_function(append_list)
_merge = device_function(merge_lists)
Flags = NDArray[np.int8]


@kernel("void(i4[:,::1], i8, i1[:,::1])")
def mutual(near: I32, k: int, flags: Flags) -> None:
    """flags[i,a] = i is among the first k of its own neighbour near[i,a]. A thread an entry."""
    p = cuda.grid(1)
    if p < near.shape[0] * k:
        i, a = p // k, p % k
        j = near[i, a]
        found = 0
        for b in range(k):
            if near[j, b] == i:
                found = 1
                break
        flags[i, a] = found


@device_function
def _write_distinct(
    pool: I32, first: I32, count: I32, i: int, indptr: I64, fill: bool, out: I32
) -> None:
    """Write the distinct members of the pool, ascending, or how many there are."""
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    size = count[0]
    for p in range(t, size, threads):
        first[p] = 1
        for q in range(p):
            if pool[q] == pool[p]:
                first[p] = 0
                break
    cuda.syncthreads()
    for p in range(t, size, threads):
        if first[p] == 0:
            continue
        if fill:
            place = indptr[i]
            for q in range(size):
                if first[q] == 1 and pool[q] < pool[p]:
                    place += 1
            out[place] = pool[p]
        else:
            cuda.atomic.add(count, 1, 1)
    cuda.syncthreads()
    if t == 0 and not fill:
        indptr[i] = count[1]


def set_words(width: int) -> int:
    """Words of shared memory for sets of at most `width` members, repeats counted."""
    return 2 * width + 2


@kernel("void(i4[:,::1], i1[:,::1], i1[:,::1], i8[::1], b1, i4[::1])")
def expand(near: I32, flags: Flags, half_flags: Flags, indptr: I64, fill: bool, out: I32) -> None:
    """R*(i): mutual neighbours, and the mutual half sets that mostly agree (2/3). A block a row."""
    shared = cuda.shared.array(0, int32)
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    i = cuda.blockIdx.x
    half = half_flags.shape[1]
    width = flags.shape[1] * (1 + half)
    pool, first, count = shared[:width], shared[width : 2 * width], shared[2 * width :]
    if t == 0:
        count[0] = 0
        count[1] = 0
    cuda.syncthreads()
    for a in range(t, flags.shape[1], threads):
        if flags[i, a] == 1:
            pool[cuda.atomic.add(count, 0, 1)] = near[i, a]
    cuda.syncthreads()
    size = count[0]
    cuda.syncthreads()  # everybody has read the size before it grows
    for a in range(t, size, threads):
        c = pool[a]
        half_size = 0
        agreed = 0
        for b in range(half):
            if half_flags[c, b] == 1:
                half_size += 1
                for q in range(size):
                    if pool[q] == near[c, b]:
                        agreed += 1
                        break
        if 3 * agreed > 2 * half_size:
            for b in range(half):
                if half_flags[c, b] == 1:
                    pool[cuda.atomic.add(count, 0, 1)] = near[c, b]
    cuda.syncthreads()
    _write_distinct(pool, first, count, i, indptr, fill, out)


@kernel("void(i4[:,::1], i1[:,::1], i4[:,::1], i1[:,::1], i8[::1], b1, i4[::1])")
def unite(
    near: I32, flags: Flags, other: I32, other_flags: Flags, indptr: I64, fill: bool, out: I32
) -> None:
    """R*(i) of CA-Jaccard: mutual neighbours of either list. A block a row."""
    shared = cuda.shared.array(0, int32)
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    i = cuda.blockIdx.x
    width = flags.shape[1] + other_flags.shape[1]
    pool, first, count = shared[:width], shared[width : 2 * width], shared[2 * width :]
    if t == 0:
        count[0] = 0
        count[1] = 0
    cuda.syncthreads()
    for a in range(t, flags.shape[1], threads):
        if flags[i, a] == 1:
            pool[cuda.atomic.add(count, 0, 1)] = near[i, a]
    for a in range(t, other_flags.shape[1], threads):
        if other_flags[i, a] == 1:
            pool[cuda.atomic.add(count, 0, 1)] = other[i, a]
    cuda.syncthreads()
    _write_distinct(pool, first, count, i, indptr, fill, out)


@kernel("void(f4[:,::1], i4[:,::1], f4[:,::1], i4[:,::1], i4[:,::1], i4[:,::1], i4[:,::1])")
def camera_rankings(
    near: F32, who: I32, other_near: F32, other_who: I32, everybody: I32, intra: I32, inter: I32
) -> None:
    """Three rankings from two: all cameras, the own one first, the others first. A thread a row."""
    i = cuda.grid(1)
    if i < who.shape[0]:
        _append(who, other_who, i, i + 1, intra)
        _append(other_who, who, i, i + 1, inter)
        _merge(near, who, other_near, other_who, i, i + 1, everybody)

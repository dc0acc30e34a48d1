"""Kernels on a tile of distances: from products to squared distances, and into sorted lists."""

from typing import Any

import numpy as np
from numba import float32, int32

from murank_kernels._types import F32, I32, I64
from murank_kernels.cuda.kernel import cuda, device_function, kernel
from murank_kernels.tiles.distances import NEAR, squared_distance

_squared_distance = device_function(squared_distance)

EVERYBODY, SAME_CAMERA, OTHER_CAMERA = 0, 1, 2  # who may enter a list


@kernel("void(f4[:,::1], f4[:,::1], f4[::1], i8[::1], i8)")
def finish_tile(tile: F32, features: F32, norms: F32, rows: I64, first_column: int) -> None:
    """Turn products into squared distances, in place. A block a row.

    Small ones are taken from differences, as on a CPU.
    """
    r = cuda.blockIdx.x
    i = rows[r]
    near = NEAR * norms[i]
    for c in range(cuda.threadIdx.x, tile.shape[1], cuda.blockDim.x):
        j = first_column + c
        value = max(norms[i] + norms[j] - np.float32(2) * tile[r, c], np.float32(0))
        if i == j:
            value = np.float32(0)
        elif value <= near:
            value = _squared_distance(features[i], features[j])
        tile[r, c] = value


@kernel("void(f4[:,::1], i8[::1], i8, i8[::1], i4[::1], f4[::1])")
def put_changes(
    tile: F32, rows: I64, first_column: int, indptr: I64, indices: I32, values: F32
) -> None:
    """Put fused squared distances into a tile. A block a row."""
    r = cuda.blockIdx.x
    i = rows[r]
    for p in range(indptr[i] + cuda.threadIdx.x, indptr[i + 1], cuda.blockDim.x):
        c = indices[p] - first_column
        if 0 <= c < tile.shape[1]:
            tile[r, c] = values[p]


@kernel("void(f4[:,::1], i8, i8, f4[:,::1])")
def turn(tile: F32, first_column: int, side: int, out: F32) -> None:
    """out[c,r] = tile[r, first_column + c]. A block a patch of side x side, through shared memory.

    Rows are read and written along, by neighbouring threads; a row of the patch has one value
    more than it needs, so that no two threads want the same bank.
    """
    patch = cuda.shared.array(0, float32)
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    across = (out.shape[0] + side - 1) // side
    row, column = cuda.blockIdx.x // across * side, cuda.blockIdx.x % across * side
    for e in range(t, side * side, threads):
        r, c = e // side, e % side
        if row + r < tile.shape[0] and column + c < out.shape[0]:
            patch[r * (side + 1) + c] = tile[row + r, first_column + column + c]
    cuda.syncthreads()
    for e in range(t, side * side, threads):
        c, r = e // side, e % side
        if row + r < tile.shape[0] and column + c < out.shape[0]:
            out[column + c, row + r] = patch[r * (side + 1) + c]


@device_function
def _before(distance: np.float32, index: int, other: np.float32, other_index: int) -> Any:
    return distance < other or (distance == other and index < other_index)


@device_function
def _may_enter(cameras: I32, rule: int, i: int, j: int) -> Any:
    if rule == 0:
        return True
    return (cameras[i] == cameras[j]) == (rule == 1)


@device_function
def _place(distances: F32, indices: I32, distance: np.float32, index: int) -> int:
    """Number of entries of a sorted list that stand before an item."""
    low, high = 0, distances.shape[0]
    while low < high:
        middle = (low + high) // 2
        if _before(distances[middle], indices[middle], distance, index):
            low = middle + 1
        else:
            high = middle
    return low


def scan_words(length: int, threads: int) -> int:
    """Words of shared memory that `scan` uses."""
    return 4 * length + 3 * threads + 1


@kernel("void(f4[:,::1], i8, i8, i4[::1], i8, f4[:,::1], i4[:,::1], b1, f4[::1])")
def scan(
    tile: F32,
    first_row: int,
    first_column: int,
    cameras: I32,
    rule: int,
    distances: F32,
    indices: I32,
    measure: bool,
    row_max: F32,
) -> None:
    """Offer each entry of a tile to its row's sorted list; raise the row's maximum. A block a row.

    Entries that stand before the list's last one are gathered in shared memory, then each entry of
    the list and each newcomer counts who stands before it, which is its new place: (distance,
    index) is a total order, so the result does not depend on the order of arrival.
    """
    floats = cuda.shared.array(0, float32)
    ints = cuda.shared.array(0, int32)
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    length = distances.shape[1]
    kept, kept_who = floats[:length], ints[length : 2 * length]
    merged, merged_who = floats[2 * length : 3 * length], ints[3 * length : 4 * length]
    end = 4 * length
    came, came_who = floats[end : end + threads], ints[end + threads : end + 2 * threads]
    maxima = floats[end + 2 * threads : end + 3 * threads]
    count = ints[end + 3 * threads :]

    r = cuda.blockIdx.x
    i = first_row + r
    width = tile.shape[1]
    for a in range(t, length, threads):
        kept[a] = distances[i, a]
        kept_who[a] = indices[i, a]
    largest = np.float32(0)
    upcoming = np.float32(0)  # loaded a step ahead, so that its way from memory is not waited for
    if t < width:
        upcoming = tile[r, t]
    for start in range(0, width, threads):
        c = start + t
        j = first_column + c
        value = upcoming
        if c + threads < width:
            upcoming = tile[r, c + threads]
        if t == 0:
            count[0] = 0
        cuda.syncthreads()
        if c < width:
            largest = max(largest, value)
            if _before(value, j, kept[length - 1], kept_who[length - 1]) and _may_enter(
                cameras, rule, i, j
            ):
                p = cuda.atomic.add(count, 0, 1)
                came[p] = value
                came_who[p] = j
        cuda.syncthreads()
        newcomers = count[0]
        if newcomers == 0:
            continue
        for e in range(t, length + newcomers, threads):
            place = e
            if e < length:
                distance, index = kept[e], kept_who[e]
            else:
                distance, index = came[e - length], came_who[e - length]
                place = _place(kept, kept_who, distance, index)
            for b in range(newcomers):
                if _before(came[b], came_who[b], distance, index):
                    place += 1
            if place < length:
                merged[place] = distance
                merged_who[place] = index
        cuda.syncthreads()
        for a in range(t, length, threads):
            kept[a] = merged[a]
            kept_who[a] = merged_who[a]
    cuda.syncthreads()
    for a in range(t, length, threads):
        distances[i, a] = kept[a]
        indices[i, a] = kept_who[a]
    maxima[t] = largest
    cuda.syncthreads()
    if measure and t == 0:
        for other in range(threads):
            largest = max(largest, maxima[other])
        row_max[i] = max(row_max[i], largest)

"""The code V of single rows, made from scratch with the query in the lists.

Inner loops are given single arrays: unpacking the tuples of them costs more than the loops do.

Arrays `marks` [2,G+1] are a caller's scratch memory: row i has the place i + 1, the query 0. They
start at `UNSEEN` and need no clearing from one row to the next, if no row comes twice.
"""

import numpy as np

from murank_kernels._types import F32, I32, I64
from murank_kernels.codes.encoding import FLOOR, normalised
from murank_kernels.loops.compiled import compiled
from murank_kernels.online.query_rows import QUERY, GalleryRows, QueryRow
from murank_kernels.tiles.distances import changed_value, squared_distance

UNSEEN = -2


@compiled
def _reciprocal(
    near: I32, sets: I32, sizes: I32, place: I32, own: I32, i: int, k: int, out: I32
) -> int:
    """R(i,k): the gallery's own, less what the query pushes out of a list, and the query."""
    size = 0
    if i == QUERY:
        for a in range(k):
            if own[a] == QUERY or place[own[a]] < k:
                out[size] = own[a]
                size += 1
        return size
    last = k - 1  # of this place something is pushed out, unless lists grow by the query
    full = k <= near.shape[1]
    for a in range(sizes[i]):
        j = sets[i, a]
        if full and place[i] < k and near[i, last] == j:
            continue
        if full and place[j] < k and near[j, last] == i:
            continue
        out[size] = j
        size += 1
    if place[i] < k:
        for a in range(k):
            if own[a] == i:
                out[size] = QUERY
                return size + 1
    return size


@compiled
def reciprocal(rows: GalleryRows, query: QueryRow, i: int, k: int, out: I32) -> int:
    """R(i,k) of k = k1 + 1 in place, in any order; returns how many."""
    return _reciprocal(rows.near, rows.sets, rows.sizes, query.place, query.own, i, k, out)


@compiled
def half_reciprocal(rows: GalleryRows, query: QueryRow, i: int, half: int, out: I32) -> int:
    """R(i,k) of the half size."""
    return _reciprocal(
        rows.near, rows.half_sets, rows.half_sizes, query.place, query.own, i, half, out
    )


@compiled
def expanded_by(
    rows: GalleryRows,
    query: QueryRow,
    m: int,
    k: int,
    half: int,
    marks: I32,
    members: I32,
    around: I32,
    out: I32,
) -> int:
    """The rows i whose R*(i) the half-size R(m) joins, in place; returns how many.

    Those are the i in R(m) with more than two thirds of the half-size R(m) in R(i). Reciprocity is
    symmetric: the i that have h in R(i) are R(h). `members` holds half places, the others k.
    """
    near, sets, sizes = rows.near, rows.sets, rows.sizes
    place, own = query.place, query.own
    last, counts = marks[0], marks[1]
    half_size = half_reciprocal(rows, query, m, half, members)
    for a in range(half_size):
        for b in range(_reciprocal(near, sets, sizes, place, own, members[a], k, around)):
            i = around[b] + 1
            if last[i] != m:
                last[i] = m
                counts[i] = 0
            counts[i] += 1
    size = reciprocal(rows, query, m, k, around)
    end = 0
    for b in range(size):
        i = around[b] + 1
        if last[i] == m and 3 * counts[i] > 2 * half_size:
            out[end] = around[b]
            end += 1
    return end


@compiled
def expanded(
    rows: GalleryRows, query: QueryRow, i: int, k: int, half: int, marks: I32, out: I32
) -> int:
    """R*(i), ascending: as `expanded_sets` has it; `out` holds k (1 + half) places or G + 1."""
    near, sets, sizes = rows.near, rows.half_sets, rows.half_sizes
    place, own = query.place, query.own
    in_set, taken = marks[0], marks[1]
    size = reciprocal(rows, query, i, k, out)
    for a in range(size):
        in_set[out[a] + 1] = i
        taken[out[a] + 1] = i
    count = size
    members = np.empty(half, np.int32)
    for a in range(size):
        half_size = _reciprocal(near, sets, sizes, place, own, out[a], half, members)
        shared = 0
        for b in range(half_size):
            if in_set[members[b] + 1] == i:
                shared += 1
        if 3 * shared <= 2 * half_size:
            continue
        for b in range(half_size):
            j = members[b]
            if taken[j + 1] != i:
                taken[j + 1] = i
                out[count] = j
                count += 1
    out[:count].sort()
    return count


@compiled
def _squared_of(
    near: I32,
    near_squared: F32,
    features: F32,
    change_indptr: I64,
    change_indices: I32,
    change_values: F32,
    of_query: F32,
    i: int,
    members: I32,
    out: F32,
) -> None:
    """Fused squared distance of row i to each member; from the list of i where it stands there."""
    for p in range(members.shape[0]):
        j = members[p]
        value = np.float32(-1)
        if i == j:
            value = np.float32(0)
        elif i == QUERY or j == QUERY:
            value = of_query[max(i, j)]
        else:
            for a in range(near.shape[1]):
                if near[i, a] == j:
                    value = near_squared[i, a]
                    break
            if value < 0:
                value = changed_value(change_indptr, change_indices, change_values, i, j)
            if value < 0:
                value = squared_distance(features[i], features[j])
        out[p] = value


@compiled
def _weigh(data: F32, largest: np.float32, squared: bool) -> None:
    """Squared distances -> weights exp(-nd) that sum to 1, in place."""
    total = np.float32(0)
    for p in range(data.shape[0]):
        data[p] = np.exp(-normalised(data[p], largest, squared))
        total += data[p]
    for p in range(data.shape[0]):
        data[p] /= total


@compiled
def encode_row(
    rows: GalleryRows,
    query: QueryRow,
    i: int,
    k: int,
    half: int,
    squared: bool,
    marks: I32,
    members: I32,
    weights: F32,
) -> int:
    """V[i] as (members, weights), in place; returns how many there are."""
    count = expanded(rows, query, i, k, half, marks, members)
    _squared_of(
        rows.near, rows.near_squared, rows.features,
        rows.change_indptr, rows.change_indices, rows.change_values,
        query.squared, i, members[:count], weights,
    )  # fmt: skip
    largest = query.row_max if i == QUERY else max(rows.row_max[i], query.squared[i])
    if not squared:
        largest = max(np.float32(np.sqrt(largest)), FLOOR)
    _weigh(weights[:count], largest, squared)
    return count

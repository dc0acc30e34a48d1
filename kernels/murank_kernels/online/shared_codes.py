"""Which gallery rows have anything in common with a query's code, and how much.

Only few do, and they are found without looking at the others. The code V'_q of the query has some
columns. Reciprocity is symmetric, so the rows whose code V_j holds column c are R(c), and those
that an m in the half-size R(c) expands. The gallery rows into which one of those is averaged are
known from the gallery alone, but for those that have the query itself among their nearest.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import F32, I32, I64
from murank_kernels.codes.encoding import Codes, Scale
from murank_kernels.codes.jaccard import jaccard_rows
from murank_kernels.loops.compiled import compiled
from murank_kernels.methods.settings import KReciprocalSettings
from murank_kernels.online.query_codes import (
    UNSEEN,
    encode_row,
    expanded_by,
    half_reciprocal,
    reciprocal,
)
from murank_kernels.online.query_rows import (
    QUERY,
    GalleryRows,
    QueryRow,
    member,
    query_row,
    sizes_of,
)


class _Columns(NamedTuple):
    """The query's code V'_q."""

    rows: I32  # [C] the rows that it is made of, in the order in which they came
    weights: F32  # [C]
    place: I32  # [G+1] which column a row (the query: 0, row i: i + 1) is, or UNSEEN


class _NearRows(NamedTuple):
    """The rows that hold one of these columns, with the part of their codes V that does."""

    rows: I32  # [J] gallery rows or the query
    indptr: I64  # [J+1]
    columns: I32  # [nnz] places in `_Columns`
    weights: F32  # [nnz]
    place: I32  # [G+1] which of them a row is, or UNSEEN


@compiled
def _columns(
    rows: GalleryRows, query: QueryRow, k: int, half: int, averaged: int, squared: bool
) -> _Columns:
    num_rows = query.squared.shape[0] + 1
    width = min(num_rows, k * (1 + half))
    marks = np.full((2, num_rows), UNSEEN, np.int32)
    place = np.full(num_rows, UNSEEN, np.int32)
    members, weights = np.empty(width, np.int32), np.empty(width, np.float32)
    room = min(num_rows, averaged * width)
    out, total = np.empty(room, np.int32), np.zeros(room, np.float32)
    end = 0
    for a in range(averaged):
        count = encode_row(rows, query, query.own[a], k, half, squared, marks, members, weights)
        for p in range(count):
            c = members[p] + 1
            if place[c] == UNSEEN:
                place[c] = end
                out[end] = members[p]
                end += 1
            total[place[c]] += weights[p]
    for p in range(end):
        total[p] /= np.float32(averaged)
    return _Columns(out[:end], total[:end], place)


@compiled
def _append(items: I32, seen: NDArray[np.bool_], out: I32, end: int) -> int:
    """Append the rows that are not there yet; returns the new end."""
    for i in items:
        if not seen[i + 1]:
            seen[i + 1] = True
            out[end] = i
            end += 1
    return end


@compiled
def _rows_near(rows: GalleryRows, query: QueryRow, columns: I32, k: int, half: int) -> I32:
    """Every row whose code V holds one of the columns."""
    num_rows = query.squared.shape[0] + 1
    seen, through = np.zeros(num_rows, np.bool_), np.zeros(num_rows, np.bool_)
    marks = np.full((2, num_rows), UNSEEN, np.int32)
    out, end = np.empty(num_rows, np.int32), 0
    middle, found = np.empty(half, np.int32), np.empty(k, np.int32)
    members, around = np.empty(half, np.int32), np.empty(k, np.int32)
    for c in columns:
        size = reciprocal(rows, query, c, k, found)
        end = _append(found[:size], seen, out, end)
        for a in range(half_reciprocal(rows, query, c, half, middle)):
            m = middle[a]
            if not through[m + 1]:
                through[m + 1] = True
                size = expanded_by(rows, query, m, k, half, marks, members, around, found)
                end = _append(found[:size], seen, out, end)
    return out[:end]


@compiled
def _keep(members: I32, weights: F32, places: I32, columns: I32, values: F32, end: int) -> int:
    """Append what stands in one of the columns; returns the new end."""
    for p in range(members.shape[0]):
        c = places[members[p] + 1]
        if c != UNSEEN:
            columns[end] = c
            values[end] = weights[p]
            end += 1
    return end


@compiled
def _codes_near(
    rows: GalleryRows, query: QueryRow, near: I32, places: I32, k: int, half: int, squared: bool
) -> _NearRows:
    """Codes of the rows `near`, in the columns that `places` names."""
    num_rows = query.squared.shape[0] + 1
    width = min(num_rows, k * (1 + half))
    marks = np.full((2, num_rows), UNSEEN, np.int32)
    members, weights = np.empty(width, np.int32), np.empty(width, np.float32)
    place = np.full(num_rows, UNSEEN, np.int32)
    indptr = np.zeros(near.shape[0] + 1, np.int64)
    columns = np.empty(16 * near.shape[0] + width, np.int32)
    values = np.empty(columns.shape[0], np.float32)
    end = 0
    for n in range(near.shape[0]):
        count = encode_row(rows, query, near[n], k, half, squared, marks, members, weights)
        if end + count > columns.shape[0]:
            columns = np.concatenate((columns, np.empty_like(columns)))
            values = np.concatenate((values, np.empty_like(values)))
        end = _keep(members[:count], weights, places, columns, values, end)
        indptr[n + 1] = end
        place[near[n] + 1] = n
    return _NearRows(near, indptr, columns[:end], values[:end], place)


@compiled
def _common(wanted: F32, total: F32, divisor: np.float32) -> np.float32:
    """Sum over the columns of min(V'_q, V'_g); clears `total`."""
    common = np.float32(0)
    for c in range(total.shape[0]):
        common += min(wanted[c], total[c] / divisor)
        total[c] = 0
    return common


@compiled
def _holders(rows: GalleryRows, query: QueryRow, near: I32, averaged: int) -> I32:
    """Gallery rows into which one of the rows `near` is averaged, and perhaps a few others."""
    num_gallery = query.squared.shape[0]
    seen = np.zeros(num_gallery + 1, np.bool_)
    out, end = np.empty(num_gallery, np.int32), 0
    for j in near:
        if j == QUERY:
            for g in range(num_gallery):
                if query.place[g] < averaged and not seen[g + 1]:
                    seen[g + 1] = True
                    out[end] = g
                    end += 1
        else:
            holders = rows.holders[rows.holder_indptr[j] : rows.holder_indptr[j + 1]]
            end = _append(holders, seen, out, end)
    return out[:end]


@compiled
def _shared(
    lists: I32, query_place: I32, near: _NearRows, wanted: F32, averaged: int, holders: I32
) -> F32:
    """What each of these gallery rows shares with V'_q; `averaged` 0: its V'_g is V_g."""
    row_place, indptr, columns, weights = near.place, near.indptr, near.columns, near.weights
    out = np.empty(holders.shape[0], np.float32)
    total = np.zeros(wanted.shape[0], np.float32)
    for t in range(holders.shape[0]):
        g = holders[t]
        for a in range(max(1, averaged)):
            r = member(lists, query_place, g, a) if averaged > 0 else g
            n = row_place[r + 1]
            if n != UNSEEN:
                for p in range(indptr[n], indptr[n + 1]):
                    total[columns[p]] += weights[p]
        out[t] = _common(wanted, total, np.float32(max(1, averaged)))
    return out


def rerank(rows: GalleryRows, squared: F32, settings: KReciprocalSettings) -> F32:
    """Final distances [G] of a query with these squared distances [G]."""
    query = query_row(rows, squared, settings.length)
    k, half, averaged = sizes_of(settings, len(query.own))
    columns = _columns(rows, query, k, half, averaged, settings.squared)
    near = _codes_near(
        rows, query, _rows_near(rows, query, columns.rows, k, half), columns.place,
        k, half, settings.squared,
    )  # fmt: skip
    expand = averaged if settings.k2 > 1 else 0
    who = _holders(rows, query, near.rows, expand)
    shared = _shared(rows.near, query.place, near, columns.weights, expand, who)
    # Sums of minima are known already: one column holds them, and no minimum with 2 changes them.
    code = Codes(np.array([0, 1]), np.zeros(1, np.int32), np.full(1, 2, np.float32))
    column = Codes(np.array([0, len(who)]), who, shared)
    scale = Scale.of(np.array([query.row_max], np.float32), squared=settings.squared)
    out = squared[None].copy()
    jaccard_rows(code, column, scale, settings.lambda_value, 0, out)
    final: F32 = out[0]
    return final

"""Where a query's matches stand in its ranking, without sorting the ranking."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, I64
from murank_kernels.evaluation.drop_rule import DropRule
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled, to_read


@dataclass(frozen=True)
class Asked:
    """What is looked for in the rankings of some queries, and what is not in them, as CSR."""

    indptr: I64  # [b+1]
    matches: I64  # [nnz] gallery index, ascending within a query
    drop_indptr: I64  # [b+1]
    dropped: I64  # [nnz] gallery index


@dataclass(frozen=True)
class MatchPlaces:
    """Matches of each query, best first, as CSR."""

    indptr: I64  # [b+1]
    matches: I64  # [nnz] gallery index
    places: I64  # [nnz] place among the items that are not dropped, from 1


CHUNK = 4096  # entries of a row that stay in first-level cache while every match is compared


@compiled
def _count_below(values: F32, distance: np.float32) -> np.uint32:
    count = np.uint32(0)  # stays 32 bits wide, so that 16 compares fit a vector
    for g in range(values.shape[0]):
        count = np.uint32(count + np.uint32(values[g] < distance))
    return count


@compiled
def _count_not_above(values: F32, distance: np.float32) -> np.uint32:
    count = np.uint32(0)  # stays 32 bits wide, so that 16 compares fit a vector
    for g in range(values.shape[0]):
        count = np.uint32(count + np.uint32(values[g] <= distance))
    return count


@compiled
def _count_before(row: F32, matches: I64, counts: I64) -> None:
    """counts[p] += items of the row that stand before matches[p] by (distance, index)."""
    for start in range(0, row.shape[0], CHUNK):
        values = row[start : start + CHUNK]
        for p in range(matches.shape[0]):
            distance = row[matches[p]]
            split = min(max(matches[p] - start, 0), values.shape[0])
            counts[p] += _count_not_above(values[:split], distance)
            counts[p] += _count_below(values[split:], distance)


@compiled
def _sort(row: F32, matches: I64) -> None:
    """Sort matches by (distance, index), in place.

    Shell's sort: a person has few images, and Numba's own sorts take seconds to compile.
    """
    gap = 1
    while 3 * gap < matches.shape[0]:
        gap = 3 * gap + 1
    while gap > 0:
        for p in range(gap, matches.shape[0]):
            m, q = matches[p], p
            while q >= gap:
                other = matches[q - gap]
                if row[other] < row[m] or (row[other] == row[m] and other < m):
                    break
                matches[q] = other
                q -= gap
            matches[q] = m
        gap //= 3


@compiled
def _places(
    rows: F32,
    drop_indptr: I64,
    dropped: I64,
    indptr: I64,
    matches: I64,
    places: I64,
    start: int,
    stop: int,
) -> None:
    for r in range(start, stop):
        row = rows[r]
        end = indptr[r + 1]
        _sort(row, matches[indptr[r] : end])
        _count_before(row, matches[indptr[r] : end], places[indptr[r] : end])
        left_out = dropped[drop_indptr[r] : drop_indptr[r + 1]]
        for p in range(indptr[r], end):
            m = matches[p]
            for g in left_out:
                if row[g] < row[m] or (row[g] == row[m] and g < m):
                    places[p] -= 1


def match_places(rows: NDArray[Any], asked: Asked) -> MatchPlaces:
    """Rank each query's matches among the gallery less what is dropped.

    `rows` are [b,G] float32 or float64 distances. A place is 1 + the number of kept items that
    stand before: one pass over the row per match, less the dropped ones.
    """
    matches = asked.matches.copy()
    places = np.ones(len(matches), np.int64)
    dropped = np.ascontiguousarray(asked.dropped)  # or kernels would be compiled for strides, too
    rows = to_read(np.ascontiguousarray(rows))

    def some(part: tuple[int, int]) -> None:
        if np.isnan(rows[slice(*part)].min()):
            raise InvalidInputError("distmat holds NaN; every pair needs a distance")
        _places(rows, asked.drop_indptr, dropped, asked.indptr, matches, places, *part)

    parallel.run(some, parallel.row_ranges(len(rows), 32), "evaluation")
    return MatchPlaces(asked.indptr, matches, places)


def asked_of(
    rule: DropRule, queries: I64, items: I64, order: I64, starts: I64, stops: I64
) -> Asked:
    """Return the matches of queries [b], and what is dropped from their rankings.

    Parameters
    ----------
    items : [G] the rule's gallery index of each item that is ranked
    order : [G] indices into `items`, grouped by pid, ascending within one
    starts, stops : [b] range of `order` with the query's pid
    """
    sizes = stops - starts
    own = np.repeat(np.arange(len(queries)), sizes)
    places = np.arange(len(own)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    same_person = order[starts[own] + places]
    if rule.of_anyone:
        mask = rule.rows(queries, items)
        is_dropped = mask[own, same_person]
        drop_rows, dropped = np.nonzero(mask)
    else:
        is_dropped = rule.pairs(queries[own], items[same_person])
        drop_rows, dropped = own[is_dropped], same_person[is_dropped]
    return Asked(
        _indptr(own[~is_dropped], len(queries)), same_person[~is_dropped],
        _indptr(drop_rows, len(queries)), dropped,
    )  # fmt: skip


def _indptr(rows: I64, count: int) -> I64:
    indptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=count), out=indptr[1:])
    return indptr

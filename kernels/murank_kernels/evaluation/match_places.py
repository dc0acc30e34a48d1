"""Where a query's matches stand in its ranking, without sorting the ranking."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, I64
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled, to_read


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
def _places(
    rows: F32,
    order: I64,
    starts: I64,
    stops: I64,
    g_camids: I64,
    q_camids: I64,
    indptr: I64,
    matches: I64,
    places: I64,
    start: int,
    stop: int,
) -> None:
    for r in range(start, stop):
        row = rows[r]
        same_person = order[starts[r] : stops[r]]
        end = indptr[r + 1]
        found = matches[indptr[r] : end]
        # Stable, and the indices ascend: equal distances keep the lower index first.
        found[:] = found[np.argsort(row[found], kind="mergesort")]
        places[indptr[r] : end] = 1
        _count_before(row, found, places[indptr[r] : end])
        for p in range(indptr[r], end):
            m = matches[p]
            for g in same_person:
                if g_camids[g] == q_camids[r] and (row[g] < row[m] or (row[g] == row[m] and g < m)):
                    places[p] -= 1


def match_places(
    rows: NDArray[Any],
    order: I64,
    starts: I64,
    stops: I64,
    g_camids: I64,
    q_camids: I64,
) -> MatchPlaces:
    """Rank each query's matches among the gallery less the items of its own pid and camera.

    Parameters
    ----------
    rows : [b,G] float32 or float64 distances
    order : [G] gallery indices grouped by pid, ascending within one
    starts, stops : [b] range of `order` with the query's pid
    g_camids, q_camids : [G], [b]

    A place is 1 + the number of kept items that stand before: one pass over the row per match.
    """
    indptr, matches = matches_of(order, starts, stops, g_camids, q_camids)
    places = np.empty(indptr[-1], np.int64)
    rows = to_read(np.ascontiguousarray(rows))

    def some(part: tuple[int, int]) -> None:
        if np.isnan(rows[slice(*part)].min()):
            raise InvalidInputError("distmat holds NaN; every pair needs a distance")
        _places(rows, order, starts, stops, g_camids, q_camids, indptr, matches, places, *part)

    parallel.run(some, parallel.row_ranges(len(rows), 32), "evaluation")
    return MatchPlaces(indptr, matches, places)


def matches_of(
    order: I64, starts: I64, stops: I64, g_camids: I64, q_camids: I64
) -> tuple[I64, I64]:
    """Matches of each query as CSR (indptr [b+1], gallery indices), in the order of `order`."""
    same = np.repeat(np.arange(len(starts)), stops - starts)
    where = np.arange(len(same)) - np.repeat(
        np.cumsum(stops - starts) - (stops - starts), stops - starts
    )
    items = order[starts[same] + where]
    kept = g_camids[items] != q_camids[same]
    indptr = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(np.bincount(same[kept], minlength=len(starts)), out=indptr[1:])
    return indptr, items[kept]

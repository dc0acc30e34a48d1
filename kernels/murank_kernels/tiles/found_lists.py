"""Lists made of what somebody else found near, and what that is measured against.

An approximate search leaves out three things, which are put right here: distances are taken from
differences; entries that fusion replaces are offered to their rows, near or far; the largest
distance of a row, which normalises its others, is looked for among items that are far from many.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import F32, I32, I64
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled
from murank_kernels.tiles.distances import DistanceTiles, changed_value, squared_distance
from murank_kernels.tiles.lists import Lists, empty_lists, offer
from murank_kernels.tiles.search import SearchWork
from murank_kernels.tiles.selection import select_rows

ROWS_EACH = 1024  # rows that are looked for at once
MOST_CHANGES = 64  # of a row; one with more is compared with all
_COLUMNS = 16384  # at once, where rows are compared with all
Near = Callable[[F32, int], I32 | I64]
"""(rows [n,D], count): the indices [n,count] of items near to each row, -1: no more, none twice."""


def lists_of(work: SearchWork, near: Near) -> Lists:
    """Make the lists of all rows, without largest distances, of the items that `near` finds.

    One list a row, no cameras. If `near` finds the nearest items of the features, these are the
    nearest by fused distance.
    """
    lists = lists_of_some(work, np.arange(len(work.features)), near)
    hubs = np.flatnonzero(np.diff(work.changes.indptr) > MOST_CHANGES)
    put_rows(lists, hubs, exact_rows(work, hubs))
    return lists


def lists_of_some(work: SearchWork, rows: I64, near: Near) -> Lists:
    """Make the lists of some rows alone; of one with many changed entries they may lack items."""
    lists = Lists.empty(len(rows), work.length, with_cameras=False)
    lists.distances[:, 0], lists.indices[:, 0] = 0, rows
    changes, num_changes = work.changes, np.diff(work.changes.indptr)

    def some(part: tuple[int, int]) -> None:
        own = slice(*part)
        # Fusion takes no more items out of a list than the row has changed entries.
        most = int(np.minimum(num_changes[rows[own]], MOST_CHANGES).max())
        count = min(len(work.features), work.length + most)
        found = np.ascontiguousarray(near(work.features[rows[own]], count), np.int32)
        _offer_found(
            work.features, rows[own], found, changes.indptr, changes.indices, changes.values,
            lists.distances[own], lists.indices[own],
        )  # fmt: skip

    parallel.run(some, parallel.row_ranges(len(rows), ROWS_EACH), "neighbours", work.progress)
    return lists


@compiled
def _offer_found(
    features: F32, rows: I64, found: I32, indptr: I64, indices: I32, values: F32,
    distances: F32, items: I32,
) -> None:  # fmt: skip
    for r in range(found.shape[0]):
        i = rows[r]
        for p in range(indptr[i], indptr[i + 1]):
            offer(distances[r], items[r], values[p], indices[p])
        for a in range(found.shape[1]):
            j = found[r, a]
            if j < 0 or j == i or changed_value(indptr, indices, values, i, j) >= 0:
                continue
            offer(distances[r], items[r], squared_distance(features[i], features[j]), j)


def exact_rows(work: SearchWork, rows: I64) -> Lists:
    """Compare some rows with all items: their lists, and largest distances. No cameras."""
    lists = Lists.empty(len(rows), work.length, with_cameras=False)
    tiles = DistanceTiles.of(work.features, work.changes)

    def some(part: tuple[int, int]) -> None:
        own = slice(*part)
        for start, stop in parallel.row_ranges(len(work.features), _COLUMNS):
            tile = tiles.tile(rows[own], start, stop)
            near, who = empty_lists(len(tile), min(work.length, stop - start))
            select_rows(tile, near, who)
            found = Lists(near, who, *empty_lists(len(tile), 0), tile.max(axis=1))
            lists.merge(found.rows(0, len(tile), start), part[0])

    parallel.run(some, parallel.row_ranges(len(rows), 128), "rows compared with all")
    return lists


def put_rows(lists: Lists, rows: I64, exact: Lists) -> None:
    """Put what `exact_rows` returned for these rows in the place of what was found."""
    lists.distances[rows], lists.indices[rows] = exact.distances, exact.indices
    lists.row_max[rows] = exact.row_max


def largest_among(work: SearchWork, items: I64) -> F32:
    """Largest fused squared distance [N] of each row to these items and to those with mu."""
    tiles = DistanceTiles.of(work.features, work.changes)
    largest = np.zeros(len(work.features), np.float32)

    def some(part: tuple[int, int]) -> None:
        for start, stop in parallel.row_ranges(len(items), ROWS_EACH):
            tile = tiles.tile(items[start:stop], *part)
            np.maximum(largest[slice(*part)], tile.max(axis=0), out=largest[slice(*part)])

    parallel.run(some, parallel.row_ranges(len(largest), ROWS_EACH), "largest distances")
    rows = np.repeat(np.arange(len(largest)), np.diff(work.changes.indptr))
    np.maximum.at(largest, rows, work.changes.values)
    return largest


def far_items(work: SearchWork, rows: I64, each: int, most: int) -> I64:
    """Return the items that are among the `each` farthest of these rows, of the most rows first.

    At most `most` of them. Few items are far from nearly all rows, more so the more rows there are.
    """
    tiles = DistanceTiles.of(work.features, work.changes)
    count = min(each, len(work.features))
    far: NDArray[np.int64] = np.empty((len(rows), count), np.int64)

    def some(part: tuple[int, int]) -> None:
        negated = tiles.tile(rows[slice(*part)], 0, len(work.features))
        np.negative(negated, out=negated)
        near, who = empty_lists(len(negated), count)
        select_rows(negated, near, who)
        far[slice(*part)] = who

    parallel.run(some, parallel.row_ranges(len(rows), 16), "far items")
    items, counts = np.unique(far, return_counts=True)
    return np.sort(items[np.argsort(-counts, kind="stable")[:most]])

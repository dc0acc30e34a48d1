"""Neighbour lists and row maxima of all N x N distances, without an N x N matrix.

The squared distances are made a square tile at a time. They are symmetric, so only tiles on and
above the diagonal are computed, and each serves the lists of its rows and of its columns in one
pass while it is in cache. What is kept for a row: its largest squared distance and its nearest
items. The order of insertion does not matter, because (distance, index) is a total order.

Floor at N rows of D values: N² D FLOP (half of a full product), read once from cache by the scan.
"""

from dataclasses import dataclass

import numpy as np

from murank_kernels._types import F32, I32
from murank_kernels.fusion.changes import Changes
from murank_kernels.loops import parallel
from murank_kernels.loops.parallel import Progress
from murank_kernels.tiles.distances import fill_squared_distances
from murank_kernels.tiles.lists import FAR, NOBODY, sort_rows
from murank_kernels.tiles.search import Search, SearchWork, exact_search
from murank_kernels.tiles.tile_scan import TILE, Finished

SLACK = 4  # list entries beyond those asked for, so that near ties survive the product's rounding


@dataclass(frozen=True)
class Neighbors:
    """What re-ranking needs to know about N x N distances."""

    indices: I32  # [N,L] nearest first, ties: lower index first; all items, or the same camera's
    other_indices: I32  # [N,L] the same for items of other cameras; [N,0] without cameras
    row_max: F32  # [N] largest squared distance of the row
    distances: F32  # [N,L] squared distances of `indices`
    other_distances: F32  # [N,L] squared distances of `other_indices`


def neighbors(
    features: F32,
    length: int,
    changes: Changes,
    *,
    num_query: int,
    cameras: I32 | None = None,
    query_gallery: F32 | None = None,
    search: Search | None = None,
    progress: Progress | None = None,
) -> Neighbors:
    """Find each row's `length` nearest rows, itself included, and its largest squared distance.

    Parameters
    ----------
    features : [N,D] float32
    length : entries a list; at most N of them are real.
    changes : fused entries, put in before anything is compared.
    num_query : Q, the first rows that are queries.
    cameras : [N] int32, or None. With cameras: one list of the row's own camera and one of the
        others; places that nobody takes hold `NOBODY`.
    query_gallery : [Q,G] float32 or None: filled with fused squared distances on the way, which
        no `search` but the exact one of this process does.
    search : who looks instead.
    """
    num_rows = features.shape[0]
    wanted, kept = min(num_rows, length), min(num_rows, length + SLACK)
    labels = np.empty(0, np.int32) if cameras is None else cameras
    work = SearchWork(features, num_query, changes, labels, kept, progress)
    if search is None:
        fill = None if query_gallery is None else _filling(query_gallery)
        found = exact_search(work, finished=fill)
    else:
        found = search(work)
    lists = (found.distances, found.indices), (found.other_distances, found.other_indices)
    for near, who in lists:
        _refine(features, near, who, changes)
    width = wanted if cameras is not None else 0
    return Neighbors(
        np.ascontiguousarray(found.indices[:, :wanted]),
        np.ascontiguousarray(found.other_indices[:, :width]),
        found.row_max,
        np.ascontiguousarray(found.distances[:, :wanted]),
        np.ascontiguousarray(found.other_distances[:, :width]),
    )


def _filling(query_gallery: F32) -> Finished:
    """Return what copies the part of each tile that is of queries and gallery items."""
    num_query = len(query_gallery)

    def fill(row: int, column: int, tile: F32) -> None:
        if row < num_query and column + TILE > num_query:
            first, stop = max(column, num_query), min(row + TILE, num_query)
            query_gallery[row:stop, first - num_query : column + tile.shape[1] - num_query] = tile[
                : stop - row, first - column :
            ]

    return fill


def _refine(features: F32, distances: F32, indices: I32, changes: Changes) -> None:
    """Sort the lists again by distances taken from differences, in place.

    The product's rounding decides nothing but which items make it into the slack.
    """
    num_rows, length = indices.shape
    if length == 0:
        return
    indptr = np.arange(num_rows + 1) * length
    flat = np.where(indices == NOBODY, 0, indices).ravel()

    def some_rows(rows: tuple[int, int]) -> None:
        fill_squared_distances(features, rows, indptr, flat, changes, distances.reshape(-1))
        part = slice(*rows)
        distances[part][indices[part] == NOBODY] = FAR
        sort_rows(distances, indices, *rows)

    parallel.run(some_rows, parallel.row_ranges(num_rows, TILE), "neighbours refined")

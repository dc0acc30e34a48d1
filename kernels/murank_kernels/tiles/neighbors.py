"""Neighbour lists and row maxima of all N x N distances, without an N x N matrix.

The squared distances are made a square tile at a time. They are symmetric, so only tiles on and
above the diagonal are computed, and each serves the lists of its rows and of its columns in one
pass while it is in cache. What is kept for a row: its largest squared distance and its nearest
items. The order of insertion does not matter, because (distance, index) is a total order.

Floor at N rows of D values: N² D FLOP (half of a full product), read once from cache by the scan.
"""

from dataclasses import dataclass
from threading import Lock, local

import numpy as np

from murank_kernels._types import F32, I32
from murank_kernels.checks.validate import LARGEST
from murank_kernels.fusion.changes import Changes
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled
from murank_kernels.loops.parallel import Progress
from murank_kernels.loops.vector import WORD, flag_not_above, make_flags, update_maxima
from murank_kernels.tiles.distances import DistanceTiles, fill_squared_distances

TILE = 512  # rows and columns of a tile: 1 MiB of float32, a core's share of cache
SLACK = 4  # list entries beyond those asked for, so that near ties survive the product's rounding
FAR = np.float32(LARGEST)  # distance of a place in a list that nothing has taken yet
NOBODY = np.int32(2**31 - 1)  # its index


@dataclass(frozen=True)
class Neighbors:
    """What re-ranking needs to know about N x N distances."""

    indices: I32  # [N,L] nearest first, ties: lower index first; all items, or the same camera's
    other_indices: I32  # [N,L] the same for items of other cameras; [N,0] without cameras
    row_max: F32  # [N] largest squared distance of the row
    distances: F32  # [N,L] squared distances of `indices`
    other_distances: F32  # [N,L] squared distances of `other_indices`


@compiled
def insert(distances: F32, indices: I32, distance: np.float32, index: int) -> None:
    """Put an item into a list sorted by (distance, index), dropping the last one."""
    p = distances.shape[0] - 1
    while p > 0 and (
        distances[p - 1] > distance or (distances[p - 1] == distance and indices[p - 1] > index)
    ):
        distances[p] = distances[p - 1]
        indices[p] = indices[p - 1]
        p -= 1
    distances[p] = distance
    indices[p] = index


@compiled
def _offer(distances: F32, indices: I32, distance: np.float32, index: int) -> None:
    """Insert an item if it stands before the list's last one."""
    last = distances.shape[0] - 1
    if distance < distances[last] or (distance == distances[last] and index < indices[last]):
        insert(distances, indices, distance, index)


@compiled
def _scan(
    tile: F32,
    first_row: int,
    first_column: int,
    cameras: I32,
    distances: F32,
    indices: I32,
    other_distances: F32,
    other_indices: I32,
    row_max: F32,
) -> None:
    """Offer each entry above the diagonal to the lists of its row and its column.

    `cameras` empty: one list a row. Else items of another camera go to the other list, and an
    entry is looked at when it might enter either.
    """
    num_rows, num_columns = tile.shape
    last = distances.shape[1] - 1
    split = cameras.shape[0] > 0
    maxima = row_max.view(np.int32)
    column_max = maxima[first_column : first_column + num_columns]
    bounds = np.empty(num_columns, np.float32)
    for t in range(num_columns):
        bounds[t] = distances[first_column + t, last]
        if split:
            bounds[t] = max(bounds[t], other_distances[first_column + t, last])
    flags = make_flags(num_columns)
    words = flags.view(np.uint64)
    for r in range(num_rows):
        i = first_row + r
        row = tile[r]
        bound = distances[i, last]
        if split:
            bound = max(bound, other_distances[i, last])
        maxima[i] = max(maxima[i], update_maxima(row.view(np.int32), column_max))
        flag_not_above(row, bounds, bound, flags)
        for word in range(words.shape[0]):
            if words[word] == 0:
                continue
            for t in range(word * WORD, (word + 1) * WORD):
                j = first_column + t
                if flags[t] == 0 or j <= i:
                    continue
                if split and cameras[i] != cameras[j]:
                    near, who = other_distances, other_indices
                else:
                    near, who = distances, indices
                _offer(near[i], who[i], row[t], j)
                _offer(near[j], who[j], row[t], i)
                bounds[t] = distances[j, last]
                if split:
                    bounds[t] = max(bounds[t], other_distances[j, last])


@compiled
def sort_rows(distances: F32, indices: I32, start: int, stop: int) -> None:
    """Insertion sort by (distance, index): the rows are nearly sorted already."""
    for i in range(start, stop):
        for a in range(1, distances.shape[1]):
            distance, index = distances[i, a], indices[i, a]
            b = a
            while b > 0 and (
                distances[i, b - 1] > distance
                or (distances[i, b - 1] == distance and indices[i, b - 1] > index)
            ):
                distances[i, b] = distances[i, b - 1]
                indices[i, b] = indices[i, b - 1]
                b -= 1
            distances[i, b] = distance
            indices[i, b] = index


def empty_lists(num_rows: int, length: int) -> tuple[F32, I32]:
    """Lists (distances, indices) [num_rows, length] that nothing has entered yet."""
    return (
        np.full((num_rows, length), FAR, np.float32),
        np.full((num_rows, length), NOBODY, np.int32),
    )


def scan_tile(
    tile: F32,
    first_row: int,
    first_column: int,
    cameras: I32,
    lists: tuple[F32, I32],
    other_lists: tuple[F32, I32],
    row_max: F32,
) -> None:
    """Offer a finished tile of squared distances to the lists of its rows and its columns."""
    _scan(tile, first_row, first_column, cameras, *lists, *other_lists, row_max)


def _tiles_on_and_above_diagonal(num_rows: int) -> list[tuple[int, int]]:
    """Tile corners by diagonals: neighbours in the order share neither rows nor columns."""
    blocks = -(-num_rows // TILE)
    return [(r * TILE, (r + o) * TILE) for o in range(blocks) for r in range(blocks - o)]


def neighbors(
    features: F32,
    length: int,
    changes: Changes,
    *,
    num_query: int,
    cameras: I32 | None = None,
    query_gallery: F32 | None = None,
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
    query_gallery : [Q,G] float32 or None: filled with fused squared distances on the way.
    """
    num_rows = features.shape[0]
    source = DistanceTiles.of(features, changes)
    wanted = min(num_rows, length)
    kept = min(num_rows, length + SLACK)
    lists = empty_lists(num_rows, kept)
    other_lists = empty_lists(num_rows, kept if cameras is not None else 0)
    lists[0][:, 0] = 0  # a row is its own neighbour at distance 0
    lists[1][:, 0] = np.arange(num_rows)
    row_max = np.zeros(num_rows, np.float32)
    labels = np.empty(0, np.int32) if cameras is None else cameras
    own = local()  # one tile of memory a worker
    locks = [Lock() for _ in range(-(-num_rows // TILE))]

    def one_tile(corner: tuple[int, int]) -> None:
        row, column = corner
        height, width = min(num_rows, row + TILE) - row, min(num_rows, column + TILE) - column
        if not hasattr(own, "tile"):
            own.tile = np.empty(TILE * TILE, np.float32)
        tile = own.tile[: height * width].reshape(height, width)
        source.tile(slice(row, row + height), column, column + width, out=tile)
        if query_gallery is not None and row < num_query and column + TILE > num_query:
            first = max(column, num_query)
            stop = min(row + TILE, num_query)
            query_gallery[row:stop, first - num_query : column + tile.shape[1] - num_query] = tile[
                : stop - row, first - column :
            ]
        low, high = locks[row // TILE], locks[column // TILE]
        with low:
            if high is low:
                scan_tile(tile, row, column, labels, lists, other_lists, row_max)
            else:
                with high:  # always the lower block first, so no two workers wait in a ring
                    scan_tile(tile, row, column, labels, lists, other_lists, row_max)

    parallel.run(one_tile, _tiles_on_and_above_diagonal(num_rows), "neighbours", progress)
    for near, who in (lists, other_lists):
        _refine(features, near, who, changes)
    width = wanted if cameras is not None else 0
    return Neighbors(
        np.ascontiguousarray(lists[1][:, :wanted]),
        np.ascontiguousarray(other_lists[1][:, :width]),
        row_max,
        np.ascontiguousarray(lists[0][:, :wanted]),
        np.ascontiguousarray(other_lists[0][:, :width]),
    )


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

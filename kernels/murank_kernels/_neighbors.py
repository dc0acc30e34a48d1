"""Neighbour lists and row maxima of all N x N distances, without an N x N matrix.

The squared distances are made a square tile at a time. They are symmetric, so only tiles on and
above the diagonal are computed, and each serves the lists of its rows and of its columns in one
pass while it is in cache. What is kept for a row: its largest squared distance and its nearest
items. The order of insertion does not matter, because (distance, index) is a total order.

Floor at N rows of D values: N² D FLOP (half of a full product), read once from cache by the scan.
"""

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numba import njit

from murank_kernels import _parallel
from murank_kernels._distances import DistanceTiles, fill_squared_distances
from murank_kernels._fusion import Changes
from murank_kernels._parallel import Progress
from murank_kernels._types import F32, I32

TILE = 512  # rows and columns of a tile: 1 MiB of float32, a core's share of cache
CHUNK = 32  # columns tested at once before any is looked at alone
SLACK = 4  # list entries beyond those asked for, so that near ties survive the product's rounding
FAR = np.float32(3e38)  # distance of a place in a list that nothing has taken yet
NOBODY = np.int32(2**31 - 1)  # its index


@dataclass(frozen=True)
class Neighbors:
    """What re-ranking needs to know about N x N distances."""

    indices: I32  # [N,L] nearest first, ties: lower index first; all items, or the same camera's
    other_indices: I32  # [N,L] the same for items of other cameras; [N,0] without cameras
    row_max: F32  # [N] largest squared distance of the row
    distances: F32  # [N,L] squared distances of `indices`
    other_distances: F32  # [N,L] squared distances of `other_indices`


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _chunk_has_hit(
    values: F32, thresholds: F32, threshold: np.float32, maxima: F32
) -> tuple[np.bool_, np.float32]:
    """Test a chunk against its column thresholds and the row's; update the column maxima.

    Returns whether any value may enter a list, and the largest value.
    """
    least = FAR
    largest = np.float32(0)
    for t in range(values.shape[0]):
        value = values[t]
        # Only the sign of a difference counts, and rounding keeps the sign.
        least = min(least, value - max(thresholds[t], threshold))
        largest = max(largest, value)
        maxima[t] = max(maxima[t], value)
    return least <= 0, largest


@njit(nogil=True, cache=True)
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
    """Offer each entry to the lists of its row and its column; above the diagonal only.

    `cameras` empty: one list a row. Else an item of another camera goes to the other list, and a
    chunk is opened when it might enter either.
    """
    num_rows, num_columns = tile.shape
    last = distances.shape[1] - 1
    split = cameras.shape[0] > 0
    column_max = row_max[first_column : first_column + num_columns]
    thresholds = np.empty(num_columns, np.float32)
    for t in range(num_columns):
        thresholds[t] = distances[first_column + t, last]
        if split:
            thresholds[t] = max(thresholds[t], other_distances[first_column + t, last])
    for r in range(num_rows):
        i = first_row + r
        row = tile[r]
        start = r + 1 if first_row == first_column else 0
        largest = row_max[i]
        while start < num_columns:
            stop = min(num_columns, start + CHUNK)
            threshold = distances[i, last]
            if split:
                threshold = max(threshold, other_distances[i, last])
            hit, chunk_max = _chunk_has_hit(
                row[start:stop], thresholds[start:stop], threshold, column_max[start:stop]
            )
            largest = max(largest, chunk_max)
            if hit:
                for t in range(start, stop):
                    value = row[t]
                    if value > thresholds[t] and value > threshold:
                        continue
                    j = first_column + t
                    if split and cameras[i] != cameras[j]:
                        near, who = other_distances, other_indices
                    else:
                        near, who = distances, indices
                    if value < near[i, last] or (value == near[i, last] and j < who[i, last]):
                        insert(near[i], who[i], value, j)
                    if value < near[j, last] or (value == near[j, last] and i < who[j, last]):
                        insert(near[j], who[j], value, i)
                        thresholds[t] = distances[j, last]
                        if split:
                            thresholds[t] = max(thresholds[t], other_distances[j, last])
            start = stop
        row_max[i] = max(row_max[i], largest)


@njit(nogil=True, cache=True)
def _sort_rows(distances: F32, indices: I32, start: int, stop: int) -> None:
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
    locks = [Lock() for _ in range(-(-num_rows // TILE))]

    def one_tile(corner: tuple[int, int]) -> None:
        row, column = corner
        tile = source.tile(np.arange(row, min(num_rows, row + TILE)), column, column + TILE)
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

    _parallel.run(one_tile, _tiles_on_and_above_diagonal(num_rows), "neighbours", progress)
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
        _sort_rows(distances, indices, *rows)

    _parallel.run(some_rows, _parallel.row_ranges(num_rows, TILE), "neighbours refined")

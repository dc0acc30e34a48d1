"""Rows of two cameras that are each other's neighbours: mostly the same person.

Tiles of the distances between every two cameras, never a matrix of them. A task has some rows of
one camera and all of the other: the lists of its rows are then complete, those of the columns are
merged afterwards. (distance, row) is a total order, so nothing depends on which task ends first.

Floor at N rows of D values over C even cameras: (1 - 1/C) N² D FLOP.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from murank_kernels._types import F32, F64, I32, I64
from murank_kernels.fusion.changes import Changes
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled
from murank_kernels.loops.parallel import Progress
from murank_kernels.loops.vector import WORD, flag_not_above, make_flags
from murank_kernels.tiles.distances import DistanceTiles
from murank_kernels.tiles.lists import NOBODY, empty_lists, insert
from murank_kernels.tiles.tile_scan import TILE

LENGTH = 3  # neighbours each way
_ROWS_A_TASK = 2 * TILE
_SOFTNESS = 0.06  # see `_weights`
_LEAST_ROWS = 20  # of a camera: in fewer somebody is nearest whoever it is

Range = tuple[int, int]
Lists = tuple[F32, I32]  # (squared distances, row numbers), nearest first
Two = tuple[Range, Range]  # the rows of two cameras


@dataclass(frozen=True)
class Pairs:
    """Rows that are taken as the same person."""

    rows: I64  # [P,2] row numbers
    weights: F64  # [P] in [0,1]
    num_nearest: int  # how many of them are each other's nearest


class Searchable(Protocol):
    """Unit rows, wherever they are."""

    def nearest_between(
        self, kept: I64, twos: list[Two], length: int, progress: Progress | None
    ) -> list[tuple[Lists, Lists]]:
        """For every two cameras, the nearest rows of the second for the first, and back.

        `kept` are the rows taken; ranges, and row numbers in lists, are places among these. A
        place in a list that nothing takes holds `NOBODY`.
        """


def mutual_neighbors(
    rows: Searchable, camids: I64, *, max_rows: int, length: int = LENGTH,
    progress: Progress | None = None,
) -> Pairs:  # fmt: skip
    """Find the rows of every two cameras that are among each other's `length` nearest.

    Parameters
    ----------
    rows : N unit rows
    camids : [N], below 0: in no pair
    max_rows : of a camera that has more, as many rows are taken, evenly spread; of one that has
        fewer than 20, none.
    length : neighbours each way.
    """
    known, counts = np.unique(camids[camids >= 0], return_counts=True)
    cameras = known[counts >= _LEAST_ROWS]
    members = [_spread(np.flatnonzero(camids == camera), max_rows) for camera in cameras]
    kept = np.concatenate([np.empty(0, np.int64), *members])
    stops = np.cumsum([len(some) for some in members])
    ranges = [(int(stop) - len(some), int(stop)) for some, stop in zip(members, stops, strict=True)]
    twos = list(combinations(ranges, 2))
    lists = rows.nearest_between(kept, twos, length, progress) if twos else []
    found = [_mutual(two, *both) for two, both in zip(twos, lists, strict=True)]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *(some.pairs for some in found)])
    distances = np.concatenate([np.empty(0), *(some.distances for some in found)])
    beyond = np.concatenate([np.empty(0), *(some.beyond for some in found)])
    return Pairs(kept[pairs], _weights(distances, beyond), int((beyond == 0).sum()))


def nearest_between(
    rows: F32, twos: list[Two], length: int, progress: Progress | None
) -> list[tuple[Lists, Lists]]:
    """Search unit rows [N,D] in host memory, tile by tile, over the worker threads."""
    tiles = DistanceTiles.of(rows, Changes.none(len(rows)))
    tasks = [
        (first, second, (start, min(start + _ROWS_A_TASK, first[1])))
        for first, second in twos
        for start in range(*first, _ROWS_A_TASK)
    ]
    done: dict[tuple[Range, Range, Range], tuple[Lists, Lists]] = {}

    def one_task(task: tuple[Range, Range, Range]) -> None:
        done[task] = _lists_between(tiles, task[2], task[1], length)

    parallel.run(one_task, tasks, "pairs across cameras", progress)
    parts: dict[Two, list[tuple[Lists, Lists]]] = {}
    for task in tasks:
        parts.setdefault(task[:2], []).append(done[task])
    return [_together(parts[two]) for two in twos]


@dataclass(frozen=True)
class _Found:
    """Pairs of two cameras."""

    pairs: I64  # [P,2]
    distances: F64  # [P] cosine distances
    beyond: F64  # [P] what that of the pair has over either row's nearest, the larger of both


def _spread(members: I64, most: int) -> I64:
    if len(members) <= most:
        return members
    return members[np.linspace(0, len(members) - 1, most).astype(np.int64)]


def _lists_between(
    tiles: DistanceTiles, rows: Range, columns: Range, length: int
) -> tuple[Lists, Lists]:
    """Lists of some rows over all columns, and of the columns over these rows."""
    row_lists = empty_lists(rows[1] - rows[0], length)
    column_lists = empty_lists(columns[1] - columns[0], length)
    for row in range(*rows, TILE):
        for column in range(*columns, TILE):
            part = slice(row, min(row + TILE, rows[1]))
            tile = tiles.tile(part, column, min(column + TILE, columns[1]))
            near = (row_lists[0][row - rows[0] :], row_lists[1][row - rows[0] :])
            far = (column_lists[0][column - columns[0] :], column_lists[1][column - columns[0] :])
            _offer_tile(tile, row, column, *near, *far)
    return row_lists, column_lists


@compiled
def _offer_tile(
    tile: F32, first_row: int, first_column: int, near: F32, who: I32, far: F32, whose: I32
) -> None:
    """Offer each entry to the list of its row (`near`, `who`) and of its column (`far`, `whose`).

    Rows and columns come in ascending order, so that an equal distance stays behind.
    """
    num_rows, num_columns = tile.shape
    last = near.shape[1] - 1
    bounds = far[:num_columns, last].copy()
    flags = make_flags(num_columns)
    words = flags.view(np.uint64)
    for r in range(num_rows):
        row = tile[r]
        flag_not_above(row, bounds, near[r, last], flags)
        for word in range(words.shape[0]):
            if words[word] == 0:
                continue
            for t in range(word * WORD, (word + 1) * WORD):
                if flags[t] == 0:
                    continue
                if row[t] < near[r, last]:
                    insert(near[r], who[r], row[t], first_column + t)
                if row[t] < far[t, last]:
                    insert(far[t], whose[t], row[t], first_row + r)
                    bounds[t] = far[t, last]


def _together(parts: list[tuple[Lists, Lists]]) -> tuple[Lists, Lists]:
    """Lists of both cameras, from those of some rows of the first and of all of the second."""
    near, who = (np.concatenate(part) for part in zip(*(rows for rows, _ in parts), strict=True))
    far, whose = parts[0][1]
    for _, (part, part_who) in parts[1:]:
        _merge(far, whose, part, part_who)
    return (near, who), (far, whose)


def _mutual(two: Two, lists: Lists, other_lists: Lists) -> _Found:
    """Match the lists of the first camera's rows with those of the second's."""
    (near, who), (far, whose) = lists, other_lists
    there = who != NOBODY
    column = np.where(there, who - two[1][0], 0)
    row = np.arange(*two[0])[:, None]
    mutual = there & (whose[column] == row[:, :, None]).any(axis=2)
    beyond = np.maximum(near - near[:, :1], near - far[column, 0])
    pairs = np.stack([np.broadcast_to(row, who.shape)[mutual], who[mutual]], axis=1)
    return _Found(pairs.astype(np.int64), _cosine(near[mutual]), _cosine(beyond[mutual]))


def _cosine(squared: F32) -> F64:
    """Cosine distances from squared Euclidean ones of unit rows."""
    return squared.astype(np.float64) / 2


@compiled
def _merge(near: F32, who: I32, part: F32, part_who: I32) -> None:
    """Offer lists of later rows to lists of earlier ones."""
    last = near.shape[1] - 1
    for j in range(near.shape[0]):
        for a in range(part.shape[1]):
            if part[j, a] < near[j, last]:
                insert(near[j], who[j], part[j, a], part_who[j, a])


def _weights(distances: F64, beyond: F64) -> F64:
    """How much a pair counts: 1 for nearest neighbours, less the farther it is beyond them.

    Where a person has several images in a camera, their distances are alike and all count; where
    there is one, what comes second is a stranger, far behind, and counts for nothing.
    """
    if not len(distances):
        return distances
    scale = _SOFTNESS * float(np.median(distances[beyond == 0]))
    return np.exp(-beyond / scale) if scale > 0 else (beyond == 0).astype(np.float64)

"""Who looks for neighbours: this process at once or with a memory, or whoever a caller names.

A search returns all rows' lists and largest distances. What it leaves to the caller is the last
step, which is the same for all: distances taken anew from differences, see `neighbors`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import F32, I32
from murank_kernels.fusion.changes import Changes
from murank_kernels.loops.parallel import Progress
from murank_kernels.tiles.distances import DistanceTiles
from murank_kernels.tiles.lists import Lists
from murank_kernels.tiles.tile_scan import TILE, Corner, Finished, TileScan

_AT_ONCE = 256  # tiles between two looks at the clock: about a second of one core

State = Mapping[str, NDArray[Any]]


class Checkpoint(Protocol):
    """Keeps how far long work is, so that another process can go on with it."""

    def load(self) -> State | None:
        """Return what was saved last, by the same work; None: nothing."""

    def due(self) -> bool:
        """Whether enough has been done since to save it."""

    def save(self, state: State) -> None:
        """Keep it. The arrays change as soon as this has returned."""


@dataclass(frozen=True)
class SearchWork:
    """What is to be searched."""

    features: F32  # [N,D] as they are compared
    num_query: int  # Q, the first rows that are queries
    changes: Changes  # fused squared distances that take the place of those of the features
    cameras: I32  # [N], or empty: one list a row
    length: int  # places a list
    progress: Progress | None = None

    def lists(self) -> Lists:
        """Return lists to begin with."""
        return Lists.start(len(self.features), self.length, with_cameras=len(self.cameras) > 0)


class Search(Protocol):
    """Finds the neighbours of all rows."""

    def __call__(self, work: SearchWork) -> Lists:
        """Return the lists of all rows, and their largest squared distances, fused."""


def exact_search(
    work: SearchWork, *, checkpoint: Checkpoint | None = None, finished: Finished | None = None
) -> Lists:
    """Compare all rows with all, a tile at a time; with a checkpoint it goes on where it was.

    The result is the same, to the bit, however often it was begun anew.
    """
    lists = work.lists()
    scan = TileScan(DistanceTiles.of(work.features, work.changes), work.cameras, lists)
    corners = _on_and_above_diagonal(len(work.features))
    if checkpoint is None:
        scan.run(corners, work.progress, finished)
        return lists
    done = _resumed(checkpoint, lists, len(corners))
    progress = work.progress
    while done < len(corners):
        some = corners[done : done + _AT_ONCE]
        scan.run(some, progress and _after(progress, done, len(corners)), finished)
        done += len(some)
        if checkpoint.due():
            checkpoint.save({**lists.to_arrays(), "done": np.array(done, np.int64)})
    return lists


def _resumed(checkpoint: Checkpoint, lists: Lists, num_tiles: int) -> int:
    """Return how many tiles the lists have seen, once they are as they were saved."""
    state = checkpoint.load()
    done = None if state is None else state.get("done")
    if state is None or done is None or done.shape != () or not 0 <= int(done) <= num_tiles:
        return 0
    return int(done) if lists.take(state) else 0


def _after(progress: Progress, before: int, total: int) -> Progress:
    return lambda stage, done, _total: progress(stage, before + done, total)


def _on_and_above_diagonal(num_rows: int) -> list[Corner]:
    """Tile corners by diagonals: neighbours in the order share neither rows nor columns."""
    blocks = -(-num_rows // TILE)
    return [(r * TILE, (r + o) * TILE) for o in range(blocks) for r in range(blocks - o)]

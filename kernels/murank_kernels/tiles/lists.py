"""Lists of the nearest items of each row: what has been found so far, in any order.

(distance, index) is a total order, so that lists hold the same whatever was offered first, and
lists of parts of the work can be merged.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import F32, I32
from murank_kernels.checks.validate import LARGEST
from murank_kernels.loops.compiled import compiled

FAR = np.float32(LARGEST)  # distance of a place in a list that nothing has taken yet
NOBODY = np.int32(2**31 - 1)  # its index


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
def offer(distances: F32, indices: I32, distance: np.float32, index: int) -> None:
    """Insert an item if it stands before the list's last one."""
    last = distances.shape[0] - 1
    if distance < distances[last] or (distance == distances[last] and index < indices[last]):
        insert(distances, indices, distance, index)


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


@compiled
def _offer_lists(
    distances: F32, indices: I32, near: F32, who: I32, first: int, start: int, stop: int
) -> None:
    """Offer sorted lists of the rows from `first` on, until one entry of a row is too far."""
    last = distances.shape[1] - 1
    for r in range(start, stop):
        i = first + r
        for a in range(near.shape[1]):
            d, j = near[r, a], who[r, a]
            if not (d < distances[i, last] or (d == distances[i, last] and j < indices[i, last])):
                break
            insert(distances[i], indices[i], d, j)


@dataclass(frozen=True)
class Lists:
    """What a search has found: L places a row, nearest first; those not taken hold FAR, NOBODY."""

    distances: F32  # [n,L] squared distances of `indices`
    indices: I32  # [n,L] all items, or with cameras those of the row's own
    other_distances: F32  # [n,L] the same for items of other cameras; [n,0] without cameras
    other_indices: I32
    row_max: F32  # [n] largest squared distance met

    @classmethod
    def empty(cls, num_rows: int, length: int, *, with_cameras: bool) -> "Lists":
        """Return lists that nothing has entered yet."""
        return cls(
            *empty_lists(num_rows, length),
            *empty_lists(num_rows, length if with_cameras else 0),
            np.zeros(num_rows, np.float32),
        )

    @classmethod
    def start(cls, num_rows: int, length: int, *, with_cameras: bool) -> "Lists":
        """Return lists of N rows in which each is its own neighbour, at distance 0."""
        made = cls.empty(num_rows, length, with_cameras=with_cameras)
        made.distances[:, 0] = 0
        made.indices[:, 0] = np.arange(num_rows)
        return made

    def merge(self, part: "Lists", first_row: int) -> None:
        """Take in what a part of the work found for the rows from `first_row` on."""
        for near, who, found, items in (
            (self.distances, self.indices, part.distances, part.indices),
            (self.other_distances, self.other_indices, part.other_distances, part.other_indices),
        ):
            if near.shape[1]:
                _offer_lists(near, who, found, items, first_row, 0, len(found))
        largest = self.row_max[first_row : first_row + len(part.row_max)]
        np.maximum(largest, part.row_max, out=largest)

    def rows(self, start: int, stop: int, offset: int) -> "Lists":
        """Return those of some rows, with `offset` added to the indices of items."""
        moved = (
            np.where(who == NOBODY, NOBODY, who + np.int32(offset))
            for who in (self.indices[start:stop], self.other_indices[start:stop])
        )
        indices, other_indices = moved
        return Lists(
            self.distances[start:stop], indices, self.other_distances[start:stop], other_indices,
            self.row_max[start:stop],
        )  # fmt: skip

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return what `take` takes."""
        return dict(vars(self))

    def take(self, arrays: Mapping[str, NDArray[np.generic]]) -> bool:
        """Go on from what `to_arrays` returned; False, and nothing is done, if it does not fit."""
        for name, own in vars(self).items():
            given = arrays.get(name)
            if given is None or (given.dtype, given.shape) != (own.dtype, own.shape):
                return False
        for name, own in vars(self).items():
            own[:] = arrays[name]
        return True

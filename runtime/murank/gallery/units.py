"""What is searched, in memory: a unit row for each track of each camera, and what filters ask."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.gallery.feature_blocks import FeatureBlocks

_ROOM = 1 << 14  # units for which there is room from the start
_FEW = 1 << 10  # dead rows that are not worth a move
_SPARSE = 1 / 4  # share of dead rows from which on they are moved together

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class UnitRow:
    """One unit as it is searched."""

    unit: int
    camera: int
    first: float  # seconds since the epoch
    last: float
    feature: F32  # [P] unit row, aligned


@dataclass(frozen=True)
class Nearest:
    """The rows nearest to a query, copied: what happens afterwards does not change them."""

    units: I64  # [M] best first; ties: the older unit first
    cameras: I64
    features: F32  # [M,P]
    distances: F32  # [M] Euclidean


class Units:
    """Rows in the order of their numbers, some of them dead. Not safe from several threads."""

    overwrites = True

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._features = FeatureBlocks(dim)
        self._size = self._dead = 0
        self._numbers, self._cameras = np.empty(0, np.int64), np.empty(0, np.int64)
        self._first, self._last = np.empty(0), np.empty(0)
        self._alive = np.empty(0, bool)

    def __len__(self) -> int:
        """Units that are alive."""
        return self._size - self._dead

    @property
    def bytes(self) -> int:
        """What the rows take in memory."""
        return self._features.bytes

    def put(
        self, numbers: I64, cameras: I64, first: NDArray[Any], last: NDArray[Any],
        features: F32 | None,
    ) -> None:  # fmt: skip
        """Add units [n], ascending; those that are there are replaced.

        Without features they are not found until they are put again, with them.
        """
        places = self._places(numbers)
        new = np.flatnonzero(places < 0)
        if len(new):
            if self._size and numbers[new[0]] < self._numbers[self._size - 1]:
                raise ValueError("new units have larger numbers than those there")
            places[new] = self._grown(len(new))
        self._numbers[places], self._cameras[places] = numbers, cameras
        self._first[places], self._last[places] = first, last
        self._alive[places] = True
        if features is not None:
            self._features.write(places, features)

    def drop(self, numbers: I64) -> None:
        """Take units away, and overwrite what they were; those that are not there are passed."""
        places = self._places(numbers)
        places = places[places >= 0]
        places = places[self._alive[places]]
        self._features.write(places, np.zeros((1, self.dim), np.float32))
        self._alive[places] = False
        self._dead += len(places)
        if self._dead > max(_FEW, self._size * _SPARSE):
            self._move_together()

    def has(self, unit: int) -> bool:
        """Whether it is there."""
        (place,) = self._places(np.array([unit]))
        return bool(place >= 0 and self._alive[place])

    def row(self, unit: int) -> UnitRow:
        """Return one that is there."""
        (place,) = self._places(np.array([unit])).tolist()
        feature = self._features.read(np.array([place]))[0]
        first, last = float(self._first[place]), float(self._last[place])
        return UnitRow(unit, int(self._cameras[place]), first, last, feature)

    def allowed(
        self,
        cameras: Collection[int] | None,
        since: float | None,
        until: float | None,
        units: I64 | None,
        without: I64 | None,
    ) -> NDArray[np.bool_]:
        """Return which rows [size] pass; a track passes whose time touches [since, until]."""
        n = self._size
        mask = self._alive[:n].copy()
        if cameras is not None:
            seen = np.zeros(n, bool)
            for camera in set(cameras):  # a gallery has few cameras
                seen |= self._cameras[:n] == camera
            mask &= seen
        if since is not None:
            mask &= self._last[:n] >= since
        if until is not None:
            mask &= self._first[:n] <= until
        if units is not None:
            named = np.zeros(n, bool)
            places = self._places(units)
            named[places[places >= 0]] = True
            mask &= named
        if without is not None:
            places = self._places(without)
            mask[places[places >= 0]] = False
        return mask

    def nearest(self, feature: F32, mask: NDArray[np.bool_], most: int) -> Nearest:
        """Return up to `most` rows of the mask, nearest first; one read of all rows."""
        places, distances = self._features.nearest(feature, mask, most)
        features = self._features.read(places)
        return Nearest(self._numbers[places], self._cameras[places], features, distances)

    def clear(self) -> None:
        """Overwrite all rows."""
        self._features.clear()
        self.__init__(self.dim)  # type: ignore[misc]

    def _places(self, numbers: I64) -> I64:
        """Return where units are [n], -1 for those never seen."""
        if not self._size:
            return np.full(len(numbers), -1)
        places = np.searchsorted(self._numbers[: self._size], numbers)
        places = np.minimum(places, self._size - 1)
        return np.where(self._numbers[places] == numbers, places, -1)

    def _grown(self, count: int) -> I64:
        first, self._size = self._size, self._size + count
        self._features.grow(count)
        if self._size > len(self._numbers):
            room = max(_ROOM, 2 * self._size)
            for name in ("_numbers", "_cameras", "_first", "_last", "_alive"):
                old = getattr(self, name)
                new = np.zeros(room, old.dtype)
                new[:first] = old[:first]
                setattr(self, name, new)
        return np.arange(first, self._size)

    def _move_together(self) -> None:
        """Close the gaps, in order; what is left behind is overwritten."""
        kept = np.flatnonzero(self._alive[: self._size])
        self._features.keep(kept)
        for name in ("_numbers", "_cameras", "_first", "_last", "_alive"):
            array = getattr(self, name)
            array[: len(kept)] = array[kept]
        self._alive[len(kept) :] = False
        self._size, self._dead = len(kept), 0

"""From the features of shots to the features of units: the direction of their mean."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from murank.gallery.gallery_file import GalleryFile
from murank.gallery.shot_records import F32
from murank.gallery.vectors import unit_vectors

_KEPT = 4096  # units that may grow soon: 8 MiB of 512 values
F64 = NDArray[np.float64]


def unit_rows(sums: F32) -> F32:
    """Bring rows [n,D] to unit length."""
    lengths = np.sqrt(np.square(sums).sum(axis=1, keepdims=True))
    rows: F32 = sums / np.maximum(lengths, np.float32(1e-20))
    return rows


class UnitSums:
    """Sums of the shots of units, those of late kept; the rest is read from the file."""

    def __init__(self, file: GalleryFile) -> None:
        self._file = file
        self._known: OrderedDict[int, F32] = OrderedDict()

    def grown(self, unit: int, new: list[F32], *, is_new: bool) -> tuple[F32 | None, F32]:
        """Return the feature [D] of a unit before its newest shots, if it had any, and with them.

        `new` are those shots' features, which the file has already.
        """
        before = None if is_new else self._known.pop(unit, None)
        if before is None and not is_new:
            vectors = unit_vectors(self._file, unit)
            before = in_order(vectors[: len(vectors) - len(new)])
        total = in_order(np.stack(new if before is None else [before, *new]))
        self._known[unit] = total
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return None if before is None else unit_rows(before[None])[0], unit_rows(total[None])[0]

    def clear(self) -> None:
        """Overwrite all."""
        for unit in list(self._known):
            self.forget(unit)

    def forget(self, unit: int) -> None:
        """Overwrite one."""
        if unit in self._known:
            self._known.pop(unit)[:] = 0


def in_order(vectors: F32) -> F32:
    """Return the sum [D] of rows, one after the other: the same however they come."""
    total: F32 = vectors[0].copy()
    for row in vectors[1:]:
        total += row
    return total


class CameraSums:
    """Sums of the units' features by camera: what the cameras' means are made of."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._sums: dict[int, tuple[int, F64]] = {}

    def add(self, cameras: NDArray[np.int64], features: F32, sign: int = 1) -> None:
        """Add rows [n,D], or take them away with `sign` -1."""
        for camera in np.unique(cameras).tolist():
            rows = features[cameras == camera].astype(np.float64)
            count, total = self._sums.get(camera, (0, np.zeros(self._dim)))
            count, total = count + sign * len(rows), total + sign * rows.sum(axis=0)
            if count > 0:
                self._sums[camera] = count, total
            else:
                self._sums.pop(camera, None)

    def arrays(self) -> tuple[NDArray[np.int64], F64, F64]:
        """Return cameras [C] ascending, counts [C] and sums [C,D]."""
        known = dict(self._sums)  # at once: others may be adding
        cameras = sorted(known)
        counts = np.array([float(known[one][0]) for one in cameras])
        sums = np.array([known[one][1] for one in cameras]).reshape(-1, self._dim)
        return np.array(cameras, np.int64), counts, sums

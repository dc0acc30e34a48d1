"""Rows of values on a GPU: written one by one, gathered for a run, never by way of the host."""

import math
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.backends.trt.arrays import DeviceArray, allocate_all
from murank.backends.trt.cuda import Gpu
from murank.backends.trt.faults import naming


class PlanRows:
    """See `backends.protocol.RowBlock`. All its work is in the order of the GPU's one stream."""

    def __init__(
        self, gpu: Gpu, lock: Lock, count: int, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> None:
        """Take the memory; `lock` is that of the session which fills it."""
        self._gpu, self._lock, self._count = gpu, lock, count
        self._shape, self._dtype = tuple(shape), dtype
        self._row_bytes = math.prod(shape) * dtype.itemsize
        self._owner = gpu.reserve(count * self._row_bytes)

    def write(self, place: int, batch: Any, number: int, count: int = 1) -> None:
        """Copy rows `number` to `number + count - 1` of `batch` into the places from `place` on.

        Raises
        ------
        MachineError
            The GPU failed.
        """
        # Past an end lies memory of others, which no run would ever complain of.
        if batch.dtype != self._dtype or tuple(batch.shape[1:]) != self._shape:
            raise ValueError(f"rows are {self._shape} {self._dtype}, got {batch.shape[1:]}")
        if not (0 <= number <= batch.shape[0] - count and 0 <= place <= self._count - count):
            raise IndexError(f"{count} rows from {number} on do not fit into place {place}")
        address = self._address(place)
        with self._lock, self._gpu.active():
            if isinstance(batch, np.ndarray):
                part = np.ascontiguousarray(batch[number : number + count])
                self._gpu.upload(address, part)
                return
            rows = batch.rows(number, number + count)
            with naming(batch.run):
                self._gpu.copy(address, rows.address, rows.nbytes)

    def gathered(self, places: NDArray[np.int64]) -> DeviceArray:
        """Return the rows at places [q,k] as a value [q,k,*shape], a copy.

        Raises
        ------
        MachineError
            Out of memory, or the GPU failed.
        """
        flat = places.ravel()
        if flat.size and not (flat.min() >= 0 and flat.max() < self._count):
            raise IndexError(f"places must be in 0..{self._count - 1}")
        with self._lock, self._gpu.active():
            wanted = {"rows": ((*places.shape, *self._shape), self._dtype)}
            rows = allocate_all(self._gpu, wanted)["rows"]
            for start, stop in _neighbours(flat):
                self._gpu.copy(
                    rows.address + start * self._row_bytes,
                    self._address(int(flat[start])),
                    (stop - start) * self._row_bytes,
                )
        return rows

    def _address(self, place: int) -> int:
        return int(self._owner) + place * self._row_bytes


def _neighbours(places: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of places that follow one another: one copy each."""
    ends = [*(np.flatnonzero(np.diff(places) != 1) + 1), len(places)]
    start = 0
    for end in map(int, ends):
        if end > start:
            yield start, end
        start = end

"""Rows on a device by onnxruntime, which copies nothing there but what a graph computes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from murank.backends.protocol import Place


class Copier(Protocol):
    """A session that has loaded `tiny_onnx.gather`."""

    def allocate(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        """Return memory on the device."""

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """Return values on the device."""

    def run_into(self, inputs: Mapping[str, Any], output: str, place: Place) -> None:
        """Let the output go to that place on the device."""


class OnnxRows:
    """A `RowBlock` on the device of a session that has loaded `tiny_onnx.gather` of such rows."""

    def __init__(
        self, copier: Copier, count: int, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> None:
        """MachineError if the device has no memory for it."""
        self._copier, self._count = copier, count
        self._shape, self._dtype = tuple(shape), dtype
        self._block = copier.allocate((count, *shape), dtype)

    def write(self, place: int, batch: Any, number: int, count: int = 1) -> None:
        """Gather rows of the batch into their places, which lie side by side: one run."""
        # Past an end lies memory of others, and a GPU gathers whatever is there.
        length = len(batch) if isinstance(batch, np.ndarray) else batch.shape()[0]
        if not (0 <= number <= length - count and 0 <= place <= self._count - count):
            raise IndexError(f"{count} rows from {number} on do not fit into place {place}")
        row_bytes = math.prod(self._shape) * self._dtype.itemsize
        address = self._block.data_ptr() + place * row_bytes
        into = Place(address, (1, count, *self._shape), self._dtype)
        numbers = np.arange(number, number + count)[None]
        self._copier.run_into({"rows": batch, "places": numbers}, "found", into)

    def gathered(self, places: NDArray[np.int64]) -> Any:
        """Return the rows at places [q,k] as a value [q,k,*shape] on the device."""
        (rows,) = self._copier.run({"rows": self._block, "places": places}, ["found"])
        return rows

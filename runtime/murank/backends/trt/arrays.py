"""Arrays that lie on the GPU."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.backends.trt.bfloat16 import BFLOAT16, to_float32
from murank.backends.trt.cuda import Gpu
from murank.backends.trt.faults import Run, naming

Shape = tuple[int, ...]
_ALIGNMENT = 256  # bytes: what TensorRT asks of an address


@dataclass(frozen=True)
class DeviceArray:
    """A contiguous array on a GPU; CuPy and Numba take it as it is, after the stream's work."""

    gpu: Gpu
    owner: Any  # keeps the memory
    address: int
    shape: Shape
    dtype: np.dtype[Any]  # BFLOAT16: what NumPy has no numbers of
    run: Run | None = None  # that fills it

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_aligned(self) -> bool:
        """Whether TensorRT takes its address."""
        return self.address % _ALIGNMENT == 0

    def rows(self, start: int, stop: int) -> "DeviceArray":
        """Return a part of the first axis; nothing is copied."""
        stop = min(stop, self.shape[0])
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (stop - start, *self.shape[1:])
        return replace(self, address=self.address + start * row, shape=shape)

    def numpy(self) -> NDArray[Any]:
        """Copy to the host, after all work so far; bfloat16 becomes float32, which is exact."""
        values: NDArray[Any] = np.empty(self.shape, self.dtype)
        if values.size:
            with naming(self.run):
                self.gpu.download(values, self.address)
        return to_float32(values) if self.dtype == BFLOAT16 else values

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False),
            "version": 3, "strides": None, "stream": self.gpu.stream,
        }  # fmt: skip


def put(gpu: Gpu, array: NDArray[Any]) -> DeviceArray:
    """Copy an array to the GPU."""
    array = np.ascontiguousarray(array)
    owner = gpu.allocate(array.nbytes)
    if array.size:
        gpu.upload(int(owner), array)
    return DeviceArray(gpu, owner, int(owner), array.shape, array.dtype)


def aligned(array: DeviceArray) -> DeviceArray:
    """Return an array that TensorRT takes the address of: a copy, where it is a part of one."""
    if array.is_aligned:
        return array
    copied = beside({"copy": array})["copy"]
    array.gpu.copy(copied.address, array.address, array.nbytes)
    return copied


def beside(arrays: Mapping[str, DeviceArray]) -> dict[str, DeviceArray]:
    """Return memory of its own, without content, for each whose address TensorRT does not take."""
    lying = {name: array for name, array in arrays.items() if not array.is_aligned}
    if not lying:
        return {}
    gpu = next(iter(lying.values())).gpu
    return allocate_all(gpu, {name: (one.shape, one.dtype) for name, one in lying.items()})


def allocate_all(
    gpu: Gpu, wanted: Mapping[str, tuple[Shape, np.dtype[Any]]], run: Run | None = None
) -> dict[str, DeviceArray]:
    """Return arrays without content, which a run will fill, in one piece of memory."""
    offsets, total = {}, 0
    for name, (shape, dtype) in wanted.items():
        offsets[name] = total
        size = math.prod(shape) * dtype.itemsize
        total += -(-size // _ALIGNMENT) * _ALIGNMENT
    owner = gpu.allocate(total)
    return {
        name: DeviceArray(gpu, owner, int(owner) + offsets[name], shape, dtype, run)
        for name, (shape, dtype) in wanted.items()
    }

"""The GPU of Numba's CUDA simulator: NumPy arrays, kernels run as Python threads.

For tests (NUMBA_ENABLE_CUDASIM=1). It checks every launch as strictly as a GPU would.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank_kernels._exceptions import DeviceUnavailableError
from murank_kernels.cuda.kernel import SHARED_BYTES, Kernel
from murank_kernels.cuda.parameters import check_arguments

THREADS = 4  # of a block; a Python thread each
MEMORY = 1 << 30


class SimulatedArray(np.ndarray[Any, Any]):
    """Stands for an array on the device."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "version": 3}


class SimulatedArrays:
    """Implements Arrays."""

    xp: Any = np
    out_of_memory: type[BaseException] = MemoryError
    lanes = 2

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn a failed allocation into what a caller sees."""
        try:
            yield
        except MemoryError as error:
            raise DeviceUnavailableError(f"the simulated GPU's memory is full: {error}") from error

    def put(self, value: Any) -> NDArray[Any]:
        """A contiguous copy, as an upload makes one."""
        return np.array(value, order="C", subok=False)

    def get(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy."""
        return np.array(array, subok=False)

    def give(self, array: NDArray[Any]) -> Any:
        """The array, marked as one on the device."""
        return array.view(SimulatedArray)

    def products(
        self, a: NDArray[Any], b: NDArray[Any], out: NDArray[Any], *, tf32: bool = False
    ) -> None:
        """By the CPU's BLAS."""
        if tf32:
            a, b = as_tf32(a), as_tf32(b)
        np.matmul(a, b.T, out=out)

    def launch(
        self, kernel: Kernel, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0
    ) -> None:
        """Check the arguments against the kernel's types, then run it."""
        check_arguments(kernel.name, kernel.parameters, arguments, np.ndarray)
        if shared_bytes > SHARED_BYTES:
            raise ValueError(f"{shared_bytes} bytes of shared memory, a block has {SHARED_BYTES}")
        if blocks:
            kernel.simulated[blocks, threads, 0, shared_bytes](*arguments)

    def threads(self, wanted: int) -> int:
        """Few."""
        return min(wanted, THREADS)

    def free_bytes(self) -> int:
        """As if it were a small GPU."""
        return MEMORY

    def release(self) -> None:
        """Nothing is cached."""


def as_tf32(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest number with 10 bits of mantissa, ties to even: 13 bits are dropped."""
    bits = array.view(np.uint32)
    bits = bits + np.uint32(0x0FFF) + (bits >> np.uint32(13) & np.uint32(1))
    rounded: NDArray[np.float32] = (bits & np.uint32(0xFFFFE000)).view(np.float32)
    return rounded

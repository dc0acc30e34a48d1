"""The GPU of Numba's CUDA simulator: NumPy arrays, kernels run as Python threads.

For tests (NUMBA_ENABLE_CUDASIM=1). It checks every launch as strictly as a GPU would.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import types
from numba.core import sigutils
from numba.np.numpy_support import as_dtype
from numpy.typing import NDArray

from murank_kernels._exceptions import DeviceUnavailableError
from murank_kernels.cuda._kernel import SHARED_BYTES, Kernel

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

    def products(self, a: NDArray[Any], b: NDArray[Any], out: NDArray[Any]) -> None:
        """By the CPU's BLAS."""
        np.matmul(a, b.T, out=out)

    def launch(
        self, kernel: Kernel, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0
    ) -> None:
        """Check the arguments against the kernel's types, then run it."""
        check_arguments(kernel, arguments)
        if shared_bytes > SHARED_BYTES:
            raise ValueError(f"{shared_bytes} bytes of shared memory, a block has {SHARED_BYTES}")
        if blocks:
            kernel.compiled[blocks, threads, 0, shared_bytes](*arguments)

    def threads(self, wanted: int) -> int:
        """Few."""
        return min(wanted, THREADS)

    def free_bytes(self) -> int:
        """As if it were a small GPU."""
        return MEMORY

    def release(self) -> None:
        """Nothing is cached."""


def check_arguments(kernel: Kernel, arguments: tuple[Any, ...]) -> None:
    """Raise TypeError unless arguments have the kernel's types; the simulator itself takes all."""
    wanted, _ = _types_of(kernel.signature)
    if len(wanted) != len(arguments):
        raise TypeError(f"{kernel.function.__name__} takes {len(wanted)} arguments")
    for place, (kind, value) in enumerate(zip(wanted, arguments, strict=True)):
        if isinstance(kind, types.Array):
            fits = (
                isinstance(value, np.ndarray)
                and value.dtype == as_dtype(kind.dtype)
                and value.ndim == kind.ndim
                and value.flags.c_contiguous
                and value.size > 0  # an empty array has no address on a GPU
            )
        else:
            fits = type(value) in _PLAIN[kind]
        if not fits:
            raise TypeError(f"argument {place} of {kernel.function.__name__} is not {kind}")


_types_of: Any = sigutils.normalize_signature
_PLAIN: dict[Any, tuple[type, ...]] = {
    types.int64: (int,),
    types.boolean: (bool,),
    types.float32: (np.float32,),
    types.float64: (float,),
}

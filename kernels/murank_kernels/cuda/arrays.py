"""What the steps need of a GPU: arrays, one product, kernels started. CuPy, or the simulator.

Everything else is written once on top of this, with the functions that NumPy and CuPy share.
"""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import NDArray

from murank_kernels.cuda.kernel import Kernel

DeviceArray = Any
"""An array in the GPU's memory: a CuPy array."""


class Arrays(Protocol):
    """A GPU, as the steps see it."""

    xp: Any
    """numpy or cupy."""
    out_of_memory: type[BaseException]
    """What an allocation that does not fit raises."""
    lanes: int
    """Threads that share a pair of rows."""

    def guarded(self) -> AbstractContextManager[None]:
        """Every call of the GPU happens inside: faults become DeviceUnavailableError."""

    def put(self, value: Any) -> DeviceArray:
        """A contiguous array on the device, of an array that is here or there."""

    def get(self, array: DeviceArray) -> NDArray[Any]:
        """A copy in host memory."""

    def give(self, array: DeviceArray) -> Any:
        """What a caller gets whose own arrays are on the device."""

    def products(
        self, a: DeviceArray, b: DeviceArray, out: DeviceArray, *, tf32: bool = False
    ) -> None:
        """out[i,j] = a[i] . b[j] in float32, all C-contiguous; no step in fewer bits unless `tf32`.

        With it the factors may be rounded to 10 bits of mantissa, where the GPU is faster so.
        """

    def launch(
        self, kernel: Kernel, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0
    ) -> None:
        """Start a kernel after all that was started before. No blocks: nothing to do."""

    def threads(self, wanted: int) -> int:
        """Threads of a block to use where `wanted` are right for a GPU."""

    def free_bytes(self) -> int:
        """Memory that can still be allocated."""

    def release(self) -> None:
        """Give cached memory back."""

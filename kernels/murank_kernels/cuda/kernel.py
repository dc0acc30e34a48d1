"""How CUDA kernels are declared: a function and the types it takes; compiled when first launched.

A module that holds kernels can be imported where there is no compiler and no GPU. A declared type
is checked at every launch, so an array of another type is an error and not read as garbage.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from murank_kernels.cuda.parameters import Parameter, parameters_of

cuda: Any
try:
    cuda = importlib.import_module("numba.cuda")
except ImportError:  # an installation of Numba without its CUDA part
    cuda = None

WORD = 4  # bytes of an int32 or a float32 in shared memory
SHARED_BYTES = 48 << 10  # of a block, on every GPU without asking for more

KERNELS: dict[str, "Kernel"] = {}  # all of them, for whoever compiles them ahead


@dataclass(frozen=True)
class Kernel:
    """A kernel and the types it takes."""

    function: Callable[..., None]
    signature: str

    @property
    def name(self) -> str:
        """Name among all kernels."""
        return self.function.__name__

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it takes, in order."""
        return parameters_of(self.signature)

    @cached_property
    def simulated(self) -> Any:
        """The kernel in Numba's simulator."""
        return cuda.jit([self.signature])(self.function)


def kernel(signature: str) -> Callable[[Callable[..., None]], Kernel]:
    """Declare a kernel with the given types, as Numba writes them."""

    def declare(function: Callable[..., None]) -> Kernel:
        KERNELS[function.__name__] = Kernel(function, signature)
        return KERNELS[function.__name__]

    return declare


def device_function(function: Any) -> Any:
    """Make a function callable from kernels: a plain one, or one that Numba compiles for CPUs."""
    plain = getattr(function, "py_func", function)
    return plain if cuda is None else cuda.jit(device=True)(plain)


def words(count: int) -> int:
    """Bytes of `count` words of shared memory."""
    return WORD * count

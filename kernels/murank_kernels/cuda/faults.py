"""What CuPy, Numba and NVIDIA's libraries raise when a GPU or its tools fail.

A class is looked for where it is defined, in modules that are loaded: one that is not cannot have
been raised, and versions differ in which they have.
"""

import sys
from collections.abc import Iterable
from typing import Any

Classes = tuple[type[BaseException], ...]

_COMPILERS = {
    "cupy.cuda.compiler": ("CompileException", "JitifyException"),
    "cupy_backends.cuda.libs.nvrtc": ("NVRTCError",),
    "numba.cuda.cudadrv.driver": ("LinkerError",),
    "numba.cuda.cudadrv.error": (
        "CCSupportError", "NvrtcCompilationError", "NvrtcError", "NvrtcSupportError", "NvvmError",
        "NvvmSupportError",
    ),
    "cuda.core._utils.cuda_utils": ("NVRTCError",),
    "cuda.core.experimental._utils.cuda_utils": ("NVRTCError",),
    "cuda.bindings.nvjitlink": ("nvJitLinkError",),
    "cuda.bindings.nvvm": ("nvvmError",),
    "cuda.pathfinder": ("DynamicLibNotFoundError",),
}  # fmt: skip
_LINKERS = {
    "cuda.core._utils.cuda_utils": ("CUDAError",),
    "cuda.core.experimental._utils.cuda_utils": ("CUDAError",),
}
_DEVICES = {
    "numba.cuda.cudadrv.driver": ("CudaAPIError", "DeadMemoryError"),
    "numba.cuda.cudadrv.error": ("CudaDriverError", "CudaRuntimeError", "CudaSupportError"),
    **_LINKERS,
}
_CONTEXTS = ("non-primary CUDA context", "Cannot switch CUDA-context")  # Numba, as RuntimeError


def is_compiler_fault(error: BaseException) -> bool:
    """Whether a compiler, or a library that one needs, failed."""
    faults = _loaded(_COMPILERS.items())
    if type(error) is ImportError:  # as CuPy says it of a library
        return isinstance(error.__cause__, faults)
    return isinstance(error, faults)


def is_linker_fault(error: BaseException) -> bool:
    """Whether it is what cuda.core raises where it lets the driver link, as it does by itself.

    Outside of linking the same class means that the GPU failed.
    """
    return isinstance(error, _loaded(_LINKERS.items()))


def is_device_fault(error: BaseException, cupy: Any) -> bool:
    """Whether the GPU, its driver or cuBLAS failed."""
    if type(error) is RuntimeError:
        return any(part in str(error) for part in _CONTEXTS)
    of_cupy = (
        cupy.cuda.runtime.CUDARuntimeError,
        cupy.cuda.driver.CUDADriverError,
        cupy.cublas.cublas.CUBLASError,
    )
    return isinstance(error, of_cupy + _loaded(_DEVICES.items()))


def first_fault(error: BaseException, cupy: Any) -> BaseException:
    """Return the fault that others followed from: after one, a context cannot even be left."""
    earlier = error.__context__
    while earlier is not None:
        if is_device_fault(earlier, cupy):
            error = earlier
        earlier = earlier.__context__
    return error


def _loaded(names: Iterable[tuple[str, tuple[str, ...]]]) -> Classes:
    found: list[Any] = [
        getattr(sys.modules.get(module), name, None) for module, some in names for name in some
    ]
    return tuple(each for each in found if isinstance(each, type))

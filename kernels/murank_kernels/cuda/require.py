"""Whether kernels can run here, and if not, what to do about it."""

import importlib
from importlib.util import find_spec
from typing import Any

from murank_kernels._exceptions import DeviceUnavailableError
from murank_kernels.cuda.kernel import cuda

OLDEST = (7, 5)  # compute capability; the compilers of CUDA 13 know nothing older
INSTALL = "pip install 'murank[cuda]' (CUDA 12: 'murank[cuda12]')"
ELSE = "or use device='cpu'"


def simulated() -> bool:
    """Whether this process runs Numba's CUDA simulator."""
    if cuda is None:
        return False
    from numba import config

    return bool(getattr(config, "ENABLE_CUDASIM", False))


def has_compiler() -> bool:
    """Whether numba-cuda is here: Numba has a CUDA part of its own, which is older."""
    return cuda is not None and find_spec("numba_cuda") is not None


def load_cupy() -> Any:
    """Import CuPy."""
    return importlib.import_module("cupy")


def load_cublas() -> None:
    """Import the part of CuPy that loads cuBLAS."""
    importlib.import_module("cupy.cublas")


def usable_cupy() -> Any:
    """Return CuPy if it, Numba's CUDA part, a driver and a GPU are here and fit together.

    Raises DeviceUnavailableError, with the remedy, otherwise.
    """
    if not has_compiler():
        raise _unavailable(f"needs numba-cuda, which is not installed: {INSTALL}")
    try:
        cupy = load_cupy()
    except ImportError as error:
        raise _unavailable(f"needs CuPy, which does not import ({error}): {INSTALL}") from error
    _check_driver(cupy.cuda.runtime)
    _check_gpu(cupy)
    try:
        load_cublas()
    except ImportError as error:
        raise _unavailable(f"finds no cuBLAS ({error}): {INSTALL}") from error
    return cupy


def _check_driver(runtime: Any) -> None:
    driver, built = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        raise _unavailable(
            "needs an NVIDIA GPU and its driver, and finds no driver: install it (on a Jetson it "
            "is part of JetPack)"
        )
    if driver // 1000 < built // 1000:
        raise _unavailable(
            f"has a driver for CUDA {_version(driver)}, which is too old for this CuPy, built for "
            f"CUDA {_version(built)}: update the driver, or install the packages of its CUDA: "
            f"{INSTALL}"
        )


def _check_gpu(cupy: Any) -> None:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise _unavailable(
            f"finds no GPU that works ({error}): check nvidia-smi and CUDA_VISIBLE_DEVICES"
        ) from error
    if count == 0:
        raise _unavailable("finds no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES")
    major, minor = capability(cupy)
    if (major, minor) < OLDEST:
        raise _unavailable(
            f"needs a GPU of compute capability {OLDEST[0]}.{OLDEST[1]} or newer, this one has "
            f"{major}.{minor}: use a newer one"
        )


def capability(cupy: Any) -> tuple[int, int]:
    """Compute capability of CuPy's current GPU."""
    digits = cupy.cuda.Device().compute_capability  # "87" is 8.7
    return int(digits[:-1]), int(digits[-1])


def _unavailable(what: str) -> DeviceUnavailableError:
    return DeviceUnavailableError(f"device='cuda' {what}, {ELSE}")


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"

"""GPUs as NVIDIA's driver library names them; no package is needed for that."""

import ctypes
from collections.abc import Callable
from typing import Any

from murank._exceptions import MachineError
from murank.machine.driver import Load, driver

_MAJOR, _MINOR = 75, 76  # attributes of a device: its compute capability
_NAME_BYTES = 128


def gpus(load: Load = ctypes.CDLL) -> dict[str, Any]:
    """Return the CUDA version that the driver runs, and its GPUs.

    Returns
    -------
    dict
        `cuda`, as in "13.0", and `gpus`: a list of `name`, `compute_capability` as in "8.7", and
        `memory_bytes`.

    Raises
    ------
    MachineError
        No driver is installed, or it cannot be used.
    """
    library = driver(load)
    _check(library, library.cuInit(0))
    version = _number(library, library.cuDriverGetVersion)
    listed = [_gpu(library, index) for index in range(_number(library, library.cuDeviceGetCount))]
    return {"cuda": f"{version // 1000}.{version % 1000 // 10}", "gpus": listed}


def _gpu(library: Any, index: int) -> dict[str, Any]:
    device = ctypes.c_int()
    _check(library, library.cuDeviceGet(ctypes.byref(device), index))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(library, library.cuDeviceGetName(name, _NAME_BYTES, device))
    memory = ctypes.c_size_t()
    _check(library, library.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    major, minor = (
        _number(library, library.cuDeviceGetAttribute, attribute, device)
        for attribute in (_MAJOR, _MINOR)
    )
    return {
        "name": name.value.decode(errors="replace"), "compute_capability": f"{major}.{minor}",
        "memory_bytes": memory.value,
    }  # fmt: skip


def _number(library: Any, ask: Callable[..., int], *arguments: Any) -> int:
    value = ctypes.c_int()
    _check(library, ask(ctypes.byref(value), *arguments))
    return value.value


def _check(library: Any, status: int) -> None:
    if status:
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        said = "unknown error" if text.value is None else text.value.decode(errors="replace")
        raise MachineError(f"NVIDIA's driver says: {said} (code {status})")

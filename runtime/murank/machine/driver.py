"""NVIDIA's driver library, found as CUDA's own users find it: no package is needed for that."""

import ctypes
from collections.abc import Callable
from typing import Any

from murank._exceptions import MachineError

DRIVER = "libcuda.so.1"
Load = Callable[[str], Any]


def driver(load: Load = ctypes.CDLL) -> Any:
    """Load the library, which starts nothing; MachineError if none is installed."""
    try:
        return load(DRIVER)
    except OSError as error:
        raise MachineError(f"NVIDIA's driver is not installed (no {DRIVER})") from error


def has_driver(load: Load = ctypes.CDLL) -> bool:
    """Whether a GPU may be here: without the library nothing can use one."""
    try:
        driver(load)
    except MachineError:
        return False
    return True

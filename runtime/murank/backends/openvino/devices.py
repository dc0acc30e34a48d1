"""OpenVINO itself: imported without its telemetry, and what its devices can compute in."""

import re
from collections.abc import Mapping
from typing import Any

from murank._exceptions import MachineError
from murank.backends.protocol import Products
from murank.checks.text import shown
from murank.machine.library import library, pip_install
from murank.machine.telemetry import warn_if_openvino_on

_OLDEST = (2026, 0)  # nothing older was tried
_INSTALL = pip_install("openvino")
_SHOWN = 300  # characters
# Where in its source an error was made, which is told before the error itself.
_SOURCE = re.compile(r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:")
# What OpenVINO calls them: as a wish, and among the capabilities of a device.
HINTS: Mapping[Products, str] = {"float32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: Mapping[Products, str] = {"float32": "FP32", "bf16": "BF16", "fp16": "FP16"}


def openvino() -> Any:
    """Import OpenVINO.

    Raises
    ------
    MachineError
        It is not installed, cannot be imported, or is too old.
    """
    warn_if_openvino_on()
    module = library("openvino", install=_INSTALL)
    version = str(getattr(module, "__version__", ""))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or tuple(map(int, numbers.groups())) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise MachineError(
            f"OpenVINO {shown(version)} is older than {oldest}, the oldest that murank runs: "
            f"uninstall it, and {_INSTALL}"
        )
    return module


def message_of(error: Exception) -> str:
    """Return what OpenVINO says on one line, not too long, without its source files."""
    text = " ".join(_SOURCE.sub("", " ".join(str(error).split())).split())
    return text[:_SHOWN] or type(error).__name__


def check_device(core: Any, device: str, products: Products) -> None:
    """Raise MachineError unless the device is here and has such products."""
    try:
        here = [str(name) for name in core.available_devices]
    except Exception as error:
        raise MachineError(f"OpenVINO could not list its devices: {message_of(error)}") from error
    # "GPU" is the first of several, which are listed as GPU.0, GPU.1.
    if device not in here and f"{device}.0" not in here:
        raise MachineError(
            f"OpenVINO has no device {device} here, only {', '.join(here) or 'none'}: install "
            "Intel's driver of it, or pass providers='openvino'"
        )
    able = capabilities(core, device)
    if _CAPABILITIES[products] in able:
        return
    others = [name for name, called in _CAPABILITIES.items() if called in able]
    raise MachineError(
        f"this {device} has no {products} products (OpenVINO knows of {', '.join(able)}), and "
        f"another precision is never taken unasked: {_instead(others)}"
    )


def capabilities(core: Any, device: str) -> list[str]:
    """Return what OpenVINO says that the device computes in: FP32, BF16, INT8 and the like."""
    try:
        names = sorted(map(str, core.get_property(device, "OPTIMIZATION_CAPABILITIES")))
    except Exception as error:
        raise MachineError(
            f"OpenVINO does not know what {device} can compute in: {message_of(error)}"
        ) from error
    return [name for name in names if name != "EXPORT_IMPORT"]


def _instead(others: list[Products]) -> str:
    if "float32" in others:
        return "leave products= out"
    if others:
        return f"pass products='{others[0]}', or providers='openvino'"
    return "pass providers='openvino'"

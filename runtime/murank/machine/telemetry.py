"""Telemetry of libraries, which is on by default, is switched off before they are imported.

onnxruntime's, from 1.29 on, would make a device id in the user's home and tell its vendor of
machine and program. What counts is the environment at its import: any call afterwards is too late.
Children inherit the switch.

OpenVINO's is a package of its own, openvino-telemetry: where it is installed, importing OpenVINO
makes an id in the user's home and sends an event. It has no switch in the environment, but is done
without if it cannot be imported. Children of ours import murank, which sees to that there.
"""

import os
import sys

SWITCH = "ORT_DISABLE_TELEMETRY"
_OFF = ("1", "true", "yes", "on")  # as onnxruntime reads it
_FIRST_WITH = (1, 29)
_OPENVINO = "openvino_telemetry"


def switch_off() -> None:
    """Set the switches, unless one is set already or its library was imported without it."""
    if "onnxruntime" not in sys.modules:
        os.environ.setdefault(SWITCH, "1")
    sys.modules.setdefault(_OPENVINO, None)  # type: ignore[arg-type]  # no import finds it


def warn_if_on() -> None:
    """Warn, once, if somebody else imported onnxruntime before the switch was set."""
    from murank.checks.text import warn  # heavy beside the rest of this module

    module = sys.modules.get("onnxruntime")
    if module is not None and SWITCH not in os.environ and _has_telemetry(module):
        warn(
            "onnxruntime was imported before murank, so its telemetry is on in this process: "
            f"import murank first, or set {SWITCH}=1"
        )
    os.environ.setdefault(SWITCH, "1")  # for children, and so as to warn once


def is_off() -> bool:
    """Whether the environment keeps the telemetry of an onnxruntime imported from now on off."""
    return os.environ.get(SWITCH, "").strip().lower() in _OFF


def warn_if_openvino_on() -> None:
    """Warn if somebody else imported OpenVINO's telemetry before murank."""
    from murank.checks.text import warn

    if sys.modules.setdefault(_OPENVINO, None) is not None:  # type: ignore[arg-type]
        warn(
            "openvino was imported before murank, so its telemetry ran in this process: import "
            "murank first, or uninstall openvino-telemetry"
        )


def _has_telemetry(module: object) -> bool:
    parts = str(getattr(module, "__version__", "")).split(".")[:2]
    known = len(parts) == 2 and all(part.isdecimal() for part in parts)
    return not known or tuple(map(int, parts)) >= _FIRST_WITH

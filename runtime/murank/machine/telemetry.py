"""onnxruntime's telemetry, which is on by default from 1.29 on, is switched off.

It would make a device id in the user's home and tell its vendor of machine and program. What counts
is the environment at its import: any call afterwards is too late. Children inherit the switch.
"""

import os
import sys

SWITCH = "ORT_DISABLE_TELEMETRY"
_OFF = ("1", "true", "yes", "on")  # as onnxruntime reads it
_FIRST_WITH = (1, 29)


def switch_off() -> None:
    """Set the switch, unless it is set already or onnxruntime was imported without it."""
    if "onnxruntime" not in sys.modules:
        os.environ.setdefault(SWITCH, "1")


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


def _has_telemetry(module: object) -> bool:
    parts = str(getattr(module, "__version__", "")).split(".")[:2]
    known = len(parts) == 2 and all(part.isdecimal() for part in parts)
    return not known or tuple(map(int, parts)) >= _FIRST_WITH

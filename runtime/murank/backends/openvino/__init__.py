"""Graphs run by OpenVINO: on CPUs of the x86 kind, on Intel's GPUs and NPUs.

It is imported only where it is asked for by name, and without its telemetry.
"""

from murank.backends.openvino.session import OpenVinoSession

__all__ = ["OpenVinoSession"]

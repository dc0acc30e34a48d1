"""onnx, which the plan reads graphs with: an extra of its own."""

from typing import Any

from murank.machine.library import library, pip_install


def onnx() -> Any:
    """Import onnx; MachineError if that cannot be."""
    parts = (
        "helper",
        "numpy_helper",
        "external_data_helper",
        "shape_inference",
        "inliner",
        "reference",
    )
    return library("onnx", *(f"onnx.{part}" for part in parts), install=pip_install("plan"))

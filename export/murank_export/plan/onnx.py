"""onnx, which the plan reads graphs with: an extra of its own."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from murank.machine.library import library


def onnx() -> Any:
    """Import onnx; MachineError if that cannot be."""
    parts = ("onnx.defs", "onnx.helper", "onnx.shape_inference")
    return library("onnx", *parts, install="install murank with its extra 'plan'")


def without_functions(model: Any) -> Any:
    """Return a model whose local functions stand where they are called."""
    import onnx.inliner

    return onnx.inliner.inline_local_functions(model)


def evaluate(model: Any, inputs: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Run a model in plain NumPy; raises what onnx does where it cannot."""
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(model).run(None, dict(inputs)))


def numpy_helper() -> Any:
    """Return what turns onnx's tensors into arrays and back."""
    import onnx.numpy_helper

    return onnx.numpy_helper

"""An encoder's own ONNX file: what it takes, read and checked before anything is put around it."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from onnx import TensorProto, helper

from murank import InputError
from murank.files.stand_in import check_no_stand_in, misread
from murank.folder.onnx_references import graph_facts
from murank_export.sources.loading import one_line

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
_HALVES = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_OLDEST_OPSET = 9  # of the operators put around the graph
_LARGEST = 2**31  # bytes that protobuf, and with it shape inference, takes


@dataclass(frozen=True)
class SourceGraph:
    """A graph and its one input."""

    model: onnx.ModelProto
    images: str  # name of the input
    kind: int  # onnx.TensorProto.DataType of it
    channels_last: bool  # [B,H,W,3]
    batch: int | None  # None: any
    size: tuple[int, int]  # height, width


def read_source(path: Path, source: Path, size: tuple[int, int] | None) -> SourceGraph:
    """Read a graph; what is known of its values' shapes is written into it.

    Parameters
    ----------
    path, source
        The file, and what the user calls it.
    size
        Height and width that the user gave.

    Raises
    ------
    InputError
        It is no ONNX file, or takes something else than images.
    """
    _check_beside(path)
    try:
        model = onnx.load(path)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:
        # protobuf, onnx and the file system each raise kinds of their own on a bad file.
        raise misread(source, f" cannot be read as ONNX: {one_line(error)}") from error
    images, channels_last = _images(model.graph, source)
    kind = images.type.tensor_type.elem_type
    if kind not in {*FLOATS, TensorProto.UINT8}:
        name = TensorProto.DataType.Name(kind).lower()
        raise InputError(f"{source} must take float images or uint8 pixels, not {name}")
    opset = opset_of(model)
    if opset == 0:
        raise InputError(f"{source} names no version of ONNX's operators (opset_import)")
    if opset < _OLDEST_OPSET:
        raise InputError(f"{source} has opset {opset}; export it with a later one")
    batch, *sides = dims(images)
    height, width = _size(sides[:2] if channels_last else sides[1:], size, source)
    for axis, length in zip((1, 2) if channels_last else (2, 3), (height, width), strict=True):
        images.type.tensor_type.shape.dim[axis].dim_value = length
    try:
        model = onnx.shape_inference.infer_shapes(model) if model.ByteSize() < _LARGEST else model
    except Exception as error:
        # Of graphs that contradict themselves, and of operators that this onnx does not know.
        raise InputError(f"{source} cannot be read as ONNX: {one_line(error)}") from error
    return SourceGraph(model, images.name, kind, channels_last, batch, (height, width))


def _check_beside(source: Path) -> None:
    """Raise InputError for a file of weights beside the graph that something else stands in for."""
    locations: frozenset[str] = frozenset()
    with contextlib.suppress(InputError):  # whoever loads it tells
        locations = graph_facts(source).locations
    for location in sorted(locations):
        check_no_stand_in(source.parent / location)


def _images(graph: Any, source: Path) -> tuple[Any, bool]:
    """Return the input, and whether its colours come last."""
    weights = {initializer.name for initializer in graph.initializer}
    inputs = [node for node in graph.input if node.name not in weights]
    if len(inputs) == 1 and rank(inputs[0]) == 4:
        _, second, _, last = dims(inputs[0])
        if second in (3, None) and not (second is None and last == 3):
            return inputs[0], False
        if last == 3:
            return inputs[0], True
    raise InputError(f"{source} must have one input, images [B,3,H,W] or [B,H,W,3]")


def _size(
    own: Sequence[int | None], given: tuple[int, int] | None, source: Path
) -> tuple[int, int]:
    height, width = own
    if given is None:
        if height is None or width is None:
            raise InputError(f"{source} takes images of any size: pass --encoder-size HxW")
        return height, width
    if height not in (None, given[0]) or width not in (None, given[1]):
        raise InputError(f"{source} takes {height}x{width}, not {given[0]}x{given[1]}")
    return given


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators, whose domain has two names; 0: none."""
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)


def is_half(graph: Any) -> bool:
    """Whether a value of 16 bits is among its inputs, weights or casts."""
    weights = (weight.data_type for weight in graph.initializer)
    casts = (helper.get_node_attr_value(n, "to") for n in graph.node if n.op_type == "Cast")
    return not _HALVES.isdisjoint([*weights, *casts])


def dims(value: Any) -> list[int | None]:
    """Return the lengths of a value's axes; None: not fixed."""
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    ]


def rank(value: Any) -> int | None:
    """Return how many axes a value has; None: not known."""
    kind = value.type.tensor_type
    return len(kind.shape.dim) if kind.HasField("shape") else None

"""A bfloat16 graph for CPUs, where onnxruntime has no bfloat16 arithmetic: float32, rounded alike.

GPUs multiply bfloat16 numbers exactly, add up in float32 and round what comes out. The same
operators in float32, each followed by that rounding, differ from that in the order of sums alone;
and from a GPU that fuses operators in roundings which it leaves out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from murank.backends.onnx.session import SessionSettings

# Node by node, as it is written: folded, all weights would be in memory in float32.
EMULATION = SessionSettings("cpu", optimise=False)
_BF16, _FP32 = TensorProto.BFLOAT16, TensorProto.FLOAT


def emulate_bfloat16(file: Path, to: Path) -> None:
    """Write a graph that computes in float32, rounding whatever is bfloat16 in that of `file`.

    Parameters
    ----------
    file
        Graph whose inputs and outputs may be bfloat16; those of `to` are float32, of the same
        names, and expect and give values that bfloat16 has.
    to
        Beside `file`, whose external data it shares: weights stay bfloat16 there, and are widened
        where they are used, one at a time.

    Load it with the settings `EMULATION`.
    """
    model = onnx.load(str(file), load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model).graph
    rounded = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == _BF16
    }
    weights = {one.name: f"{one.name}_wide" for one in graph.initializer if one.data_type == _BF16}
    nodes = [_cast(name, wide, _FP32) for name, wide in weights.items()]
    for node in graph.node:
        nodes += _emulated(node, weights, rounded)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == _BF16:
            value.type.tensor_type.elem_type = _FP32
    to.write_bytes(model.SerializeToString())


def _emulated(node: NodeProto, weights: dict[str, str], rounded: set[str]) -> Iterator[NodeProto]:
    """Yield a node on float32, and the roundings of its outputs."""
    wide = NodeProto()
    wide.CopyFrom(node)
    wide.input[:] = [weights.get(name, name) for name in node.input]
    wide.output[:] = [f"{name}_exact" if name in rounded else name for name in node.output]
    for attribute in wide.attribute:
        if attribute.name == "to" and attribute.i == _BF16:
            attribute.i = _FP32
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == _BF16:
            value: Any = numpy_helper.to_array(attribute.t)
            attribute.t.CopyFrom(numpy_helper.from_array(value.astype("float32")))
    yield wide
    for name in node.output:
        if name in rounded:
            yield _cast(f"{name}_exact", f"{name}_bfloat16", _BF16)
            yield _cast(f"{name}_bfloat16", name, _FP32)


def _cast(source: str, name: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [name], to=to)

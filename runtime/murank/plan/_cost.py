"""What a graph costs with inputs of given shapes: operations, bytes, memory; node by node."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from murank.plan._live import largest_live
from murank.plan._onnx import onnx
from murank.plan._products import operations
from murank.plan._shapes import Shape, Value, Values, attribute, find_values, read_graph

Arithmetic = Literal["fp32", "fp16", "bf16", "int8"]
_INT8 = {
    "ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearConv",
    "QLinearMatMul",
}  # fmt: skip
# Another name for the same bytes, or nothing at all.
VIEWS = {
    "Constant", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"
}  # fmt: skip
# Of their first input they read no more than they return.
_PICKERS = {"Gather", "GatherElements", "GatherND", "Slice"}
_BITS_ACCURACY_INT8 = 4  # accuracy_level of MatMulNBits


@dataclass(frozen=True)
class NodeCost:
    """One node that runs."""

    op: str
    operations: int  # multiplications plus additions of a product; 0: no product
    arithmetic: Arithmetic  # of the product
    weight_bytes: int
    read_bytes: int  # of activations
    written_bytes: int

    @property
    def bytes(self) -> int:
        """All that moves."""
        return self.weight_bytes + self.read_bytes + self.written_bytes


@dataclass(frozen=True)
class GraphCost:
    """One run of a graph."""

    nodes: tuple[NodeCost, ...]
    weight_bytes: int  # of the whole graph, in memory
    float_weights: int  # values in float matrices, which int8 would hold in a byte each
    input_bytes: int
    output_bytes: int
    live_bytes: int  # activations alive at once, at most; inputs and outputs among them
    uncounted: Mapping[str, int]  # nodes whose shapes are not known, by operator

    @property
    def operations(self) -> int:
        """Multiplications plus additions of all products."""
        return sum(node.operations for node in self.nodes)

    @property
    def bytes(self) -> int:
        """All that the nodes move."""
        return sum(node.bytes for node in self.nodes)


class CountedGraph:
    """A graph's file, read once, counted for inputs of any shapes."""

    def __init__(self, path: Path, *, half_bytes: int = 2) -> None:
        self._model = read_graph(path)
        self._folder = path.parent
        self._half_bytes = half_bytes  # 4 where fp16 is computed, and kept, as fp32

    def cost(self, inputs: Mapping[str, Shape]) -> GraphCost:
        """Return what one run with inputs of these shapes costs."""
        values = find_values(self._model, inputs, self._folder)
        graph = self._model.graph
        weights = {tensor.name for tensor in graph.initializer}
        size = _Sizes(values, self._half_bytes)
        given = [node.name for node in graph.input if node.name not in weights]
        results = [node.name for node in graph.output]
        return GraphCost(
            nodes=tuple(_running(graph, values, size)),
            weight_bytes=sum(size.of(name) for name in weights),
            float_weights=sum(_float_matrix(values.known[name]) for name in weights),
            input_bytes=sum(size.of(name) for name in given),
            output_bytes=sum(size.of(name) for name in results),
            live_bytes=largest_live(graph, values.static, size.of, VIEWS, given, results),
            uncounted=Counter(
                node.op_type for node in graph.node
                if any(name and name not in values.known for name in node.output)
            ),
        )  # fmt: skip


class _Sizes:
    """Bytes of values."""

    def __init__(self, values: Values, half_bytes: int) -> None:
        self._values = values
        tensor, to_numpy = onnx().TensorProto, onnx().helper.tensor_dtype_to_np_dtype
        self._bytes = {tensor.FLOAT16: half_bytes, tensor.BFLOAT16: half_bytes}
        self._to_numpy = to_numpy

    def of(self, name: str) -> int:
        """Bytes of a value; 0 if it is not known."""
        value = self._values.known.get(name)
        if value is None:
            return 0
        if value.elem not in self._bytes:
            self._bytes[value.elem] = self._to_numpy(value.elem).itemsize
        return value.count * self._bytes[value.elem]


def _running(graph: Any, values: Values, size: _Sizes) -> Iterator[NodeCost]:
    for node in graph.node:
        names = [name for name in node.output if name]
        folded = all(name in values.static for name in names)
        if folded or node.op_type in VIEWS or not all(name in values.known for name in names):
            continue
        inputs = [values.known[name] for name in node.input if name]
        products = operations(node, inputs, values.known[names[0]])
        read = _read(node, names, size)
        yield NodeCost(
            op=node.op_type,
            operations=products or 0,
            arithmetic=_arithmetic(node, inputs),
            weight_bytes=sum(n for name, n in read.items() if name in values.static),
            read_bytes=sum(n for name, n in read.items() if name not in values.static),
            written_bytes=sum(size.of(name) for name in names),
        )


def _read(node: Any, outputs: list[str], size: _Sizes) -> dict[str, int]:
    """Bytes read of each distinct input."""
    read = {name: size.of(name) for name in node.input if name}
    if node.op_type in _PICKERS:
        read[node.input[0]] = min(read[node.input[0]], size.of(outputs[0]))
    return read


def _arithmetic(node: Any, inputs: Sequence[Value]) -> Arithmetic:
    if node.op_type in _INT8:
        return "int8"
    if (
        node.op_type == "MatMulNBits"
        and attribute(node, "accuracy_level", 0) == _BITS_ACCURACY_INT8
    ):
        return "int8"
    kinds: Mapping[int, Arithmetic] = {
        onnx().TensorProto.FLOAT16: "fp16", onnx().TensorProto.BFLOAT16: "bf16"
    }  # fmt: skip
    return kinds.get(inputs[0].elem, "fp32") if inputs else "fp32"


def _float_matrix(value: Value) -> int:
    """Values of a float matrix."""
    tensor = onnx().TensorProto
    is_float = value.elem in (tensor.FLOAT, tensor.FLOAT16, tensor.BFLOAT16)
    return value.count if is_float and len(value.shape) == 2 else 0

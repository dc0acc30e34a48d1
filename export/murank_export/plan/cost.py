"""What a graph costs with inputs of given shapes: operations, bytes, memory; node by node."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from murank_export.plan.live import largest_live
from murank_export.plan.narrow import narrow_values
from murank_export.plan.onnx import onnx
from murank_export.plan.products import operations
from murank_export.plan.shapes import Shape, Value, Values, attribute, find_values, read_graph

Arithmetic = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
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

    def __init__(self, path: Path, *, half_bytes: int = 2, narrow: bool = False) -> None:
        """`half_bytes`: 4 where fp16 is computed, and kept, as fp32. `narrow`: as TensorRT does it.

        TensorRT takes QuantizeLinear and DequantizeLinear into the products behind them, which
        then read narrow values and multiply them; onnxruntime's CPU kernels run every node.
        """
        self._model = read_graph(path)
        self._folder = path.parent
        self._half_bytes, self._narrow = half_bytes, narrow

    def cost(self, inputs: Mapping[str, Shape]) -> GraphCost:
        """Return what one run with inputs of these shapes costs."""
        graph = self._model.graph
        values = find_values(self._model, inputs, self._folder)
        narrow = narrow_values(graph) if self._narrow else {}
        static = values.static | {name for name, parts in narrow.items() if len(parts) > 1}
        views = VIEWS | {"DequantizeLinear"} if self._narrow else VIEWS
        weights = {tensor.name for tensor in graph.initializer}
        size = _Sizes(values, self._half_bytes, narrow)
        given = [node.name for node in graph.input if node.name not in weights]
        results = [node.name for node in graph.output]
        return GraphCost(
            nodes=tuple(_running(graph, values, size, static, views)),
            weight_bytes=sum(size.of(name) for name in weights),
            float_weights=sum(_float_matrix(values.known[name]) for name in weights),
            input_bytes=sum(size.of(name) for name in given),
            output_bytes=sum(size.of(name) for name in results),
            live_bytes=largest_live(graph, static, size.of, views, given, results),
            uncounted=Counter(
                node.op_type for node in graph.node
                if any(name and name not in values.known for name in node.output)
            ),
        )  # fmt: skip


class _Sizes:
    """Bytes of values, and the type that they are multiplied in."""

    def __init__(
        self, values: Values, half_bytes: int, narrow: Mapping[str, Sequence[str]]
    ) -> None:
        self._values, self._narrow = values, narrow
        tensor = onnx().TensorProto
        self._bits = {
            tensor.FLOAT16: 8 * half_bytes, tensor.BFLOAT16: 8 * half_bytes,
            tensor.INT4: 4, tensor.UINT4: 4,
        }  # fmt: skip

    def of(self, name: str) -> int:
        """Bytes of a value; 0 if it is not known."""
        if name in self._narrow:
            return sum(self.of(part) for part in self._narrow[name])
        value = self._values.known.get(name)
        if value is None:
            return 0
        if value.elem not in self._bits:
            to_numpy = onnx().helper.tensor_dtype_to_np_dtype
            self._bits[value.elem] = 8 * to_numpy(value.elem).itemsize
        return -(-value.count * self._bits[value.elem] // 8)

    def elem(self, name: str) -> int:
        """Type of a known value, or of the narrow one that it stands for."""
        return self._values.known[self._narrow.get(name, [name])[0]].elem


def _running(
    graph: Any, values: Values, size: _Sizes, static: Collection[str], views: Collection[str]
) -> Iterator[NodeCost]:
    for node in graph.node:
        names = [name for name in node.output if name]
        folded = all(name in static for name in names)
        if folded or node.op_type in views or not all(name in values.known for name in names):
            continue
        given = [name for name in node.input if name]
        inputs = [values.known[name] for name in given]
        products = operations(node, inputs, values.known[names[0]])
        read = _read(node, names, size)
        yield NodeCost(
            op=node.op_type,
            operations=products or 0,
            arithmetic=_arithmetic(node, [size.elem(name) for name in given]),
            weight_bytes=sum(n for name, n in read.items() if name in static),
            read_bytes=sum(n for name, n in read.items() if name not in static),
            written_bytes=sum(size.of(name) for name in names),
        )


def _read(node: Any, outputs: list[str], size: _Sizes) -> dict[str, int]:
    """Bytes read of each distinct input."""
    read = {name: size.of(name) for name in node.input if name}
    if node.op_type in _PICKERS:
        read[node.input[0]] = min(read[node.input[0]], size.of(outputs[0]))
    return read


def _arithmetic(node: Any, elems: Sequence[int]) -> Arithmetic:
    """Of a product with inputs of these types: narrow if both factors are, else the wider's."""
    if node.op_type in _INT8:
        return "int8"
    if (
        node.op_type == "MatMulNBits"
        and attribute(node, "accuracy_level", 0) == _BITS_ACCURACY_INT8
    ):
        return "int8"
    tensor = onnx().TensorProto
    narrow: Mapping[int, Arithmetic] = {
        tensor.INT8: "int8", tensor.UINT8: "int8", tensor.FLOAT8E4M3FN: "fp8"
    }  # fmt: skip
    floats: Mapping[int, Arithmetic] = {
        tensor.FLOAT: "fp32", tensor.FLOAT16: "fp16", tensor.BFLOAT16: "bf16"
    }  # fmt: skip
    kinds = {narrow.get(elem) for elem in elems[:2]}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is not None:
        return kind
    return next((floats[elem] for elem in elems if elem in floats), "fp32")


def _float_matrix(value: Value) -> int:
    """Values of a float matrix."""
    tensor = onnx().TensorProto
    is_float = value.elem in (tensor.FLOAT, tensor.FLOAT16, tensor.BFLOAT16)
    return value.count if is_float and len(value.shape) == 2 else 0

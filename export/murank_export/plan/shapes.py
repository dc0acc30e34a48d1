"""Shapes and types of every value of an ONNX graph whose inputs have known shapes.

Nodes are visited in order; ONNX's own rules say what a node returns. Where a shape depends on
values (Reshape, Expand, Range), the small integers it is computed from are computed, too: that is
what `infer_shapes` of the whole graph does not do beyond vectors. Weights are never read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank_export.plan.onnx import evaluate, numpy_helper, onnx, without_functions

Shape = tuple[int, ...]
_SMALL = 4096  # elements of a value that shapes are computed from
_MICROSOFT = "com.microsoft"
# Outputs of these have the shape and type of their first input.
_LIKE_FIRST = {
    "BiasGelu", "FastGelu", "Gelu", "MultiHeadAttention", "QuickGelu", "RotaryEmbedding",
    "SkipLayerNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization",
}  # fmt: skip
# onnxruntime's own in the domain of ONNX itself.
_UNLISTED = {"SimplifiedLayerNormalization"}
_PRODUCTS = {"DynamicQuantizeMatMul", "FusedMatMul", "MatMulIntegerToFloat", "MatMulNBits"}


@dataclass(frozen=True)
class Value:
    """What is known of a value."""

    shape: Shape
    elem: int  # onnx.TensorProto.DataType

    @property
    def count(self) -> int:
        """Its elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass
class Values:
    """What the walk finds, by name of the value."""

    known: dict[str, Value] = field(default_factory=dict)
    static: set[str] = field(default_factory=set)  # of weights alone: onnxruntime folds them
    small: dict[str, NDArray[Any]] = field(default_factory=dict)


def read_graph(path: Path) -> Any:
    """Return the model in an ONNX file, local functions inlined, without its external weights.

    Raises
    ------
    InputError
        It is no ONNX file that this onnx reads.
    MachineError
        onnx is not installed.
    """
    library = onnx()
    try:
        model = library.load(str(path), load_external_data=False)
        if model.functions:
            model = without_functions(model)
    except Exception as error:
        # onnx raises protobuf's own kinds, and its checker's.
        raise InputError(f"{path} cannot be read by onnx: {error}") from error
    return model


def find_values(model: Any, inputs: Mapping[str, Shape], folder: Path) -> Values:
    """Return what is known of the values of a graph.

    Parameters
    ----------
    model
        Of `read_graph`.
    inputs
        Shapes of the graph's inputs; free lengths of others are taken from equal names in these.
    folder
        Where the graph's file is: small integers may lie in external data.

    Raises
    ------
    InputError
        An input is missing from the graph, does not fit it, or the length of another is not known.
    """
    values = Values()
    values.known |= _inputs(model, inputs)
    for tensor in model.graph.initializer:
        values.known[tensor.name] = Value(tuple(tensor.dims), tensor.data_type)
        values.static.add(tensor.name)
        if values.known[tensor.name].count <= _SMALL:
            values.small[tensor.name] = numpy_helper().to_array(tensor, str(folder))
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for node in model.graph.node:
        _visit(node, values, opsets, model)
    return values


def _inputs(model: Any, given: Mapping[str, Shape]) -> dict[str, Value]:
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.input if node.name not in weights}
    lengths: dict[str, int] = {}
    for name, shape in given.items():
        dims = nodes[name].type.tensor_type.shape.dim if name in nodes else ()
        fixed = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
        if len(fixed) != len(shape) or any(
            have not in (None, want) for have, want in zip(fixed, shape, strict=True)
        ):
            raise InputError(
                f"the graph's input {name} is {fixed if name in nodes else 'missing'}, which does "
                f"not fit {list(shape)}; export the engine again"
            )
        lengths |= {dim.dim_param: n for dim, n in zip(dims, shape, strict=True) if dim.dim_param}
    found = {}
    for name, node in nodes.items():
        kind = node.type.tensor_type
        dims = [lengths.get(d.dim_param) if d.dim_param else d.dim_value for d in kind.shape.dim]
        shape = given.get(name) or tuple(dim for dim in dims if dim is not None)
        if len(shape) != len(dims):
            raise InputError(f"the graph has an input {name} that plan does not know; upgrade it")
        found[name] = Value(tuple(shape), kind.elem_type)
    return found


def _visit(node: Any, values: Values, opsets: Mapping[str, int], model: Any) -> None:
    names = [name for name in node.input if name]
    if node.op_type != "Constant" and any(name not in values.known for name in names):
        return
    static = all(name in values.static for name in names) and not _has_graph(node)
    if static and node.op_type != "DequantizeLinear":  # which onnxruntime leaves as it is
        values.static |= {name for name in node.output if name}
    if node.op_type == "Shape":
        _fix_shape(node, values)
        return
    found = _inferred(node, values, opsets, model.ir_version)
    for name in node.output:
        if name in found:
            values.known[name] = found[name]
    small = all(name in values.small for name in names)
    if small and found and all(value.count <= _SMALL for value in found.values()):
        _evaluate(node, values, model)


def _has_graph(node: Any) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def _fix_shape(node: Any, values: Values) -> None:
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    shape = np.array(values.known[node.input[0]].shape[start:end], np.int64)
    values.small[node.output[0]] = shape
    values.known[node.output[0]] = Value(shape.shape, onnx().TensorProto.INT64)


def attribute(node: Any, name: str, default: Any) -> Any:
    """Return an attribute of a node."""
    for one in node.attribute:
        if one.name == name:
            return onnx().helper.get_attribute_value(one)
    return default


def _inferred(
    node: Any, values: Values, opsets: Mapping[str, int], ir_version: int
) -> dict[str, Value]:
    if node.domain == _MICROSOFT or node.op_type in _UNLISTED:
        return _of_microsoft(node, values)
    library = onnx()
    given = [name for name in node.input if name]
    types = {
        name: library.helper.make_tensor_type_proto(
            values.known[name].elem, values.known[name].shape
        )
        for name in given
    }
    data = {
        name: numpy_helper().from_array(values.small[name], name)
        for name in given
        if name in values.small
    }
    try:
        schema = library.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
        found = library.shape_inference.infer_node_outputs(
            schema, node, types, data,
            opset_imports=[library.helper.make_opsetid(d, v) for d, v in opsets.items()],
            ir_version=ir_version,
        )  # fmt: skip
    except Exception:  # noqa: BLE001
        # An operator that onnx does not know, or whose rule it lacks: it is reported as such.
        return {}
    return {name: value for name, kind in found.items() if (value := _value(kind)) is not None}


def _value(kind: Any) -> Value | None:
    """Return what a type says if it says all."""
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return Value(tuple(dim.dim_value for dim in tensor.shape.dim), tensor.elem_type)


def _of_microsoft(node: Any, values: Values) -> dict[str, Value]:
    """Operators of onnxruntime that exported and optimised graphs are made of."""
    first = values.known[node.input[0]]
    if node.op_type in _LIKE_FIRST:
        return {node.output[0]: first}
    if node.op_type not in _PRODUCTS:
        return {}
    elem = first.elem
    if node.op_type == "MatMulIntegerToFloat":
        elem = values.known[node.input[2]].elem
    if node.op_type == "MatMulNBits":
        return {node.output[0]: Value((*first.shape[:-1], attribute(node, "N", 0)), elem)}
    left = _turned(first.shape, attribute(node, "transA", 0))
    right = _turned(values.known[node.input[1]].shape, attribute(node, "transB", 0))
    try:
        shape = (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
    except (ValueError, IndexError):
        return {}
    return {node.output[0]: Value(shape, elem)}


def _turned(shape: Shape, transposed: int) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if transposed else shape


def _evaluate(node: Any, values: Values, model: Any) -> None:
    """Compute a small value that shapes may depend on."""
    names = [name for name in node.input if name]
    helper = onnx().helper
    graph = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(n, values.known[n].elem, None)
            for n in dict.fromkeys(names)
        ],
        [helper.make_tensor_value_info(n, 0, None) for n in node.output if n],
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import)
    try:
        with np.errstate(all="ignore"):
            found = evaluate(alone, {n: values.small[n] for n in names})
    except Exception:  # noqa: BLE001
        # The evaluator lacks operators; a shape that needs this value is then not known.
        return
    for name, array in zip([n for n in node.output if n], found, strict=True):
        values.small[name] = np.asarray(array)

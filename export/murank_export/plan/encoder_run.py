"""One run of the encoder, any graph that was brought: its nodes, by onnx's shape inference."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from murank._exceptions import InputError
from murank_export.plan.graph_file import VIEWS, Tensor, read_model, weights_of
from murank_export.plan.graph_run import GraphRun, ProductKind, Step
from murank_export.plan.onnx import onnx

_WEIGHTS_APART = 4  # version from which weights are no inputs
_SMALL = 64  # elements of a value that shapes are computed from
_PRODUCTS = {"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"}
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}  # input of the kernel
_NO_RULE = {"ConvTranspose", "Einsum", "Attention", "LSTM", "GRU"}
_KINDS: Mapping[str, ProductKind] = {
    "FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "INT8": "int8", "UINT8": "int8"
}  # fmt: skip


def encoder_run(path: Path, size: tuple[int, int], half_bytes: int) -> GraphRun:
    """Count the encoder for one image of a height and width; weights are not read.

    Raises
    ------
    InputError
        onnx cannot read the graph.
    MachineError
        onnx is not installed.
    """
    model = read_model(path)
    graph = _inferred(model, path, size).graph
    weights = weights_of(graph.initializer)
    known = weights | dict(_values((*graph.value_info, *graph.input, *graph.output)))
    steps, missing = [], Counter[str]()
    fixed = set(weights)  # and what follows from them alone: onnxruntime folds it
    for node in graph.node:
        names = [name for name in (*node.input, *node.output) if name]
        if not _branches(node) and all(name in fixed for name in node.input if name):
            fixed.update(node.output)
        elif (
            node.op_type in _NO_RULE
            or _branches(node)
            or not all(name in known or name in fixed for name in names)
        ):
            missing[node.op_type] += 1
        elif node.op_type not in VIEWS:
            steps.append(_step(node, known, fixed, half_bytes))
    held = sum(one.bytes(half_bytes) for one in weights.values())
    given, returned = (
        sum(known[one.name].bytes(half_bytes) for one in side if one.name in known.keys() - weights)
        for side in (graph.input, graph.output)
    )
    live = _live(graph, known, fixed, half_bytes)
    return GraphRun(tuple(steps), len(steps), held, given, returned, live, missing)


def _inferred(model: Any, path: Path, size: tuple[int, int]) -> Any:
    """Return the model for one image, with the shapes that onnx finds."""
    library = onnx()
    try:
        _prepare(model, path.parent, (1, 3, *size))
        while True:
            found = library.shape_inference.infer_shapes(model, data_prop=True)
            known = dict(_values((*found.graph.value_info, *found.graph.input)))
            if not _fold(model, known):
                return found
    except Exception as error:
        # onnx's own kinds, of graphs that contradict themselves.
        raise InputError(f"{path}: onnx cannot infer its shapes: {error}") from error


def _prepare(model: Any, folder: Path, images: tuple[int, ...]) -> None:
    """Fix the free lengths of what goes in, free those of what comes out, read small integers."""
    graph, external = model.graph, onnx().external_data_helper
    weights = {one.name for one in graph.initializer}
    for one in graph.input:
        if one.name not in weights:
            for dim, length in zip(one.type.tensor_type.shape.dim, images, strict=True):
                dim.dim_value = dim.dim_value or length
    for one in graph.output:
        one.type.tensor_type.ClearField("shape")
    model.ir_version = max(model.ir_version, _WEIGHTS_APART)
    for tensor in graph.initializer:
        if prod(tensor.dims) <= _SMALL and external.uses_external_data(tensor):
            external.load_external_data_for_tensor(tensor, str(folder))


def _fold(model: Any, known: Mapping[str, Tensor]) -> bool:
    """Make weights of small integers that follow from known shapes; return whether any do.

    Lengths that Reshape, Expand and Resize are told: inference follows only the simplest of them.
    """
    library, graph = onnx(), model.graph
    arrays = library.numpy_helper
    small = {
        one.name: arrays.to_array(one) for one in graph.initializer if prod(one.dims) <= _SMALL
    }
    given, folded = dict(small), []
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in known and not node.attribute:
            small[node.output[0]] = np.array(known[node.input[0]].shape, np.int64)
        elif not all(name in small for name in node.input if name) or len(node.output) != 1:
            continue
        else:
            value = _evaluated(node, small, model)
            if value is None or value.size > _SMALL:
                continue
            small[node.output[0]] = value
        folded.append(node)
    for node in folded:
        graph.node.remove(node)
    graph.initializer.extend(
        arrays.from_array(value, name) for name, value in small.items() if name not in given
    )
    return bool(folded)


def _evaluated(node: Any, small: Mapping[str, Any], model: Any) -> Any:
    """Return what a node gives for constants; None where onnx cannot run it."""
    helper, names = onnx().helper, dict.fromkeys(name for name in node.input if name)
    undefined = [helper.make_tensor_value_info(name, 0, None) for name in (*names, node.output[0])]
    graph = helper.make_graph([node], "node", undefined[:-1], undefined[-1:])
    alone = helper.make_model(graph, opset_imports=model.opset_import)
    try:
        run = onnx().reference.ReferenceEvaluator(alone).run
        return np.asarray(run(None, {name: small[name] for name in names})[0])
    except Exception:  # noqa: BLE001
        # The evaluator lacks operators; a shape that needs this value is then not known.
        return None


def _values(infos: Any) -> Iterator[tuple[str, Tensor]]:
    name = onnx().TensorProto.DataType.Name
    for info in infos:
        kind = info.type.tensor_type
        dims = kind.shape.dim
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            yield info.name, Tensor(tuple(dim.dim_value for dim in dims), name(kind.elem_type))


def _branches(node: Any) -> bool:
    """Whether it holds graphs of its own, as If and Loop do."""
    return any(one.HasField("g") or one.graphs for one in node.attribute)


def _step(node: Any, known: Mapping[str, Tensor], fixed: set[str], half_bytes: int) -> Step:
    sizes = {name: known[name].bytes(half_bytes) for name in node.input if name in known}
    returned = sum(known[name].bytes(half_bytes) for name in node.output if name)
    if node.op_type in ("Gather", "Slice"):  # reads no more than it returns
        sizes[node.input[0]] = min(sizes.get(node.input[0], 0), returned)
    weights = sum(size for name, size in sizes.items() if name in fixed)
    moved = sum(sizes.values()) - weights + returned
    inputs = [known[name] for name in node.input if name in known]
    kinds = [_KINDS[one.elem] for one in inputs if one.elem in _KINDS]
    kind = kinds[0] if kinds else "fp32"
    return Step(node.op_type, _operations(node, known), weights, moved, kind)


def _operations(node: Any, known: Mapping[str, Tensor]) -> int:
    count = known[node.output[0]].count
    if node.op_type in _CONVOLUTIONS:
        kernel = known[node.input[_CONVOLUTIONS[node.op_type]]]  # [out, in / groups, *window]
        return 2 * count * (kernel.count // kernel.shape[0])
    if node.op_type in _PRODUCTS:
        turned = any(one.name == "transA" and one.i for one in node.attribute)
        return 2 * count * known[node.input[0]].shape[0 if turned else -1]
    return 0


def _live(graph: Any, known: Mapping[str, Tensor], fixed: set[str], half_bytes: int) -> int:
    """Return the largest sum of activations, each alive from its node to its last use."""
    last = {name: place for place, node in enumerate(graph.node) for name in node.input}
    alive = {
        one.name: known[one.name].bytes(half_bytes) for one in graph.input if one.name in known
    }
    alive = {name: size for name, size in alive.items() if name not in fixed}
    largest = 0
    for place, node in enumerate(graph.node):
        if node.op_type not in VIEWS:
            alive |= {
                name: known[name].bytes(half_bytes)
                for name in node.output if name in known and name not in fixed
            }  # fmt: skip
        else:  # the same bytes under another name
            alive |= {node.output[0]: alive.pop(node.input[0], 0)} if node.input else {}
        largest = max(largest, sum(alive.values()))
        alive = {
            name: size for name, size in alive.items() if last.get(name, len(graph.node)) > place
        }
    return largest

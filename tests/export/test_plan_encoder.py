"""Counts of brought encoders, small graphs made by hand, against sums done by hand."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from murank import InputError, MachineError
from murank_export.plan.encoder_run import encoder_run
from murank_export.plan.graph_run import GraphRun

IMAGE = 3 * 8 * 4  # values


def weight(name: str, *shape: int, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def save(
    folder: Path, nodes: Sequence[onnx.NodeProto], weights: Sequence[onnx.TensorProto],
    elem: int = TensorProto.FLOAT, *, listed: bool = False, more: Any = None,
    x: Sequence[Any] = ("batch", 3, 8, 4),
    returned: int = TensorProto.FLOAT,
) -> Path:  # fmt: skip
    """Write x [batch,3,8,4] -> y; `listed`: weights are inputs too, as they once were."""
    inputs = [helper.make_tensor_value_info("x", elem, list(x))]
    if listed:
        shapes = ((one.name, one.data_type, one.dims) for one in weights)
        inputs += [helper.make_tensor_value_info(*shape) for shape in shapes]
    outputs = [helper.make_tensor_value_info("y", returned, ["batch", None])]
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid(name, version) for name, version in (("", 17), ("here", 1))]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=3 if listed else 9, functions=more or []
    )
    onnx.save(model, folder / "encoder.onnx")
    return folder / "encoder.onnx"


def count(folder: Path, *given: Any, half_bytes: int = 2, **more: Any) -> GraphRun:
    return encoder_run(save(folder, *given, **more), (8, 4), half_bytes)


@pytest.mark.parametrize("listed", [False, True])
def test_a_convolution_and_a_product(tmp_path: Path, listed: bool) -> None:
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1], strides=[2, 2]), node("Flatten", "a", "b"),
        node("Gemm", "b m bias"),
    ]  # fmt: skip
    weights = [weight("w", 6, 3, 3, 3), weight("m", 48, 5), weight("bias", 5)]
    found = count(tmp_path, nodes, weights, listed=listed)
    convolution, product = found.steps  # a view is free
    assert convolution.operations == 2 * (6 * 4 * 2) * 3 * 9
    assert (convolution.weight_bytes, convolution.moved_bytes) == (4 * 162, 4 * (IMAGE + 48))
    assert product.operations == 2 * 48 * 5
    assert (product.weight_bytes, product.moved_bytes) == (4 * 245, 4 * 53)
    assert (found.input_bytes, found.output_bytes) == (4 * IMAGE, 4 * 5)
    assert found.weight_bytes == 4 * (162 + 245)
    assert found.live_bytes == 4 * (IMAGE + 48)
    assert (found.nodes, found.uncounted) == (2, {})


def test_groups_turned_factors_and_integers(tmp_path: Path) -> None:
    grouped = count(tmp_path, [node("Conv", "x w", group=3)], [weight("w", 6, 1, 1, 1)])
    assert grouped.operations == 2 * 6 * 32
    nodes = [node("Flatten", "x", "a"), node("Gemm", "a m", transA=1)]
    assert count(tmp_path, nodes, [weight("m", 1, 7)]).operations == 2 * IMAGE * 7
    steps = [weight("w", 4, 7, dtype=np.int8)]
    elems = (TensorProto.UINT8, TensorProto.INT32)
    found = count(tmp_path, [node("MatMulInteger", "x w")], steps, elems[0], returned=elems[1])
    (product,) = found.steps
    assert (product.operations, product.kind) == (2 * 24 * 4 * 7, "int8")
    assert (product.weight_bytes, product.moved_bytes) == (28, IMAGE + 4 * 24 * 7)


@pytest.mark.parametrize("half_bytes", [2, 4])
def test_halves(tmp_path: Path, half_bytes: int) -> None:
    found = count(
        tmp_path, [node("MatMul", "x w")], [weight("w", 4, 7, dtype=np.float16)],
        TensorProto.FLOAT16, returned=TensorProto.FLOAT16, half_bytes=half_bytes,
    )  # fmt: skip
    assert found.steps[0].kind == "fp16"
    assert found.bytes == half_bytes * (28 + IMAGE + 24 * 7)
    assert found.weight_bytes == half_bytes * 28


def lengths() -> list[onnx.NodeProto]:
    """As exporters write x.flatten(2): lengths computed, then a Reshape and a product."""
    return [
        node("Shape", "x", "all"),
        node("Gather", "all two", "rows"),  # 8, a scalar
        node("Range", "zero rows one", "order"),
        node("ReduceSum", "order", "sum", keepdims=1),  # 28
        node("Div", "sum seven", "ones"),
        node("Concat", "three minus", "shape", axis=0),
        node("Mul", "shape ones", "told"),
        node("Reshape", "x told", "wide"),
        node("MatMul", "wide w"),
    ]


SCALARS = {"two": 2, "zero": 0, "one": 1}
INTEGERS = [
    *(numpy_helper.from_array(np.array(n, np.int64), name) for name, n in SCALARS.items()),
    integers("three", 3), integers("minus", -1), integers("seven", 28),
]  # fmt: skip


def test_lengths_that_follow_from_shapes(tmp_path: Path) -> None:
    found = count(tmp_path, lengths(), [*INTEGERS, weight("w", 32, 5)])  # [3,32] x [32,5]
    assert (found.operations, found.uncounted) == (2 * 3 * 32 * 5, {})
    assert [step.name for step in found.steps] == ["MatMul"]


def test_small_integers_in_external_data_and_weights_that_are_missing(tmp_path: Path) -> None:
    shape, w = integers("shape", 8, 12), weight("w", 12, 70)
    for tensor, name, size in ((shape, "shape.data", 16), (w, "missing.data", 3360)):
        onnx.external_data_helper.set_external_data(tensor, name, offset=0, length=size)
    (tmp_path / "shape.data").write_bytes(shape.raw_data)
    for tensor in (shape, w):
        tensor.ClearField("raw_data")
    found = count(tmp_path, [node("Reshape", "x shape", "z"), node("MatMul", "z w")], [shape, w])
    assert found.operations == 2 * 8 * 12 * 70
    assert found.weight_bytes == 16 + 4 * 840


def test_what_is_not_counted_is_named(tmp_path: Path) -> None:
    nodes = [node("Riddle", "x", "z", domain="here"), node("Relu", "z")]
    assert count(tmp_path, nodes, []).uncounted == {"Riddle": 1, "Relu": 1}
    product = node("Einsum", "x w", equation="bchw,wd->bchd")
    assert count(tmp_path, [product], [weight("w", 4, 2)]).uncounted == {"Einsum": 1}
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Relu", "x")], "branch", [], [y])
    asked = numpy_helper.from_array(np.array(True), "asked")
    branches = node("If", "asked", then_branch=branch, else_branch=branch)
    assert count(tmp_path, [branches], [asked]).uncounted == {"If": 1}


def test_weights_alone_are_folded_and_functions_are_opened(tmp_path: Path) -> None:
    nodes = [node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x t")]
    (product,) = count(tmp_path, nodes, [weight("w", 70, 4)]).steps
    assert (product.name, product.weight_bytes) == ("MatMul", 4 * 280)
    twice = helper.make_function(
        "here", "Twice", ["a"], ["c"], [node("Relu", "a", "b"), node("Relu", "b", "c")],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    found = count(tmp_path, [node("Twice", "x", domain="here")], [], more=[twice])
    assert [step.name for step in found.steps] == ["Relu", "Relu"]


def test_activations_die_after_their_last_use(tmp_path: Path) -> None:
    chain = [node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "c")]
    assert count(tmp_path, [*chain, node("Relu", "c")], []).live_bytes == 2 * 4 * IMAGE
    assert count(tmp_path, [*chain, node("Add", "c x")], []).live_bytes == 3 * 4 * IMAGE


def test_the_size_of_images(tmp_path: Path) -> None:
    """Told where the graph leaves it free; a graph that takes no images is refused."""
    nodes, weights = [node("MatMul", "x w")], [weight("w", 4, 7)]
    free = count(tmp_path, nodes, weights, x=("batch", 3, "height", "width"))
    assert free.operations == 2 * 24 * 4 * 7
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        count(tmp_path, nodes, weights, x=("batch", 4))


def test_no_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "encoder.onnx"
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        encoder_run(file, (8, 4), 2)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MachineError, match=r"murank\[plan\]"):
        encoder_run(file, (8, 4), 2)

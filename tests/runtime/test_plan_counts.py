"""Operations, bytes and shapes of hand-made graphs, against sums done by hand."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from murank import InputError, MachineError
from murank_export.plan.cost import CountedGraph, GraphCost, NodeCost

F, H, U8, I8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8
Dims = Sequence[int | str]


def weight(name: str, shape: Sequence[int], elem: int = F) -> onnx.TensorProto:
    dtype = helper.tensor_dtype_to_np_dtype(elem)
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def microsoft(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return node(op, inputs, outputs, domain="com.microsoft", **attributes)


def cost(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto] = (),
    *,
    x: Dims = (2, 3),
    elem: int = F,
    given: Sequence[int] | None = None,
    more: Sequence[onnx.ValueInfoProto] = (),
    output: str = "y",
    half_bytes: int = 2,
    narrow: bool = False,
    opset: int = 18,
) -> GraphCost:
    inputs = [helper.make_tensor_value_info("x", elem, list(x)), *more]
    outputs = [helper.make_tensor_value_info(output, F, None)]
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    onnx.save(model, folder / "graph.onnx")
    shape = tuple(int(n) for n in x) if given is None else tuple(given)
    graph_cost = CountedGraph(folder / "graph.onnx", half_bytes=half_bytes, narrow=narrow)
    return graph_cost.cost({"x": shape})


def only(found: GraphCost) -> NodeCost:
    (one,) = found.nodes
    assert not found.uncounted
    return one


def test_a_product_and_its_bytes(tmp_path: Path) -> None:
    one = only(cost(tmp_path, [node("MatMul", "x w")], [weight("w", (5, 7))], x=(4, 3, 5)))
    assert one == NodeCost("MatMul", 2 * 4 * 3 * 5 * 7, "fp32", 4 * 35, 4 * 60, 4 * 84)


@pytest.mark.parametrize(
    ("made", "weights", "x", "operations"),
    [
        (node("Gemm", "x w b"), [weight("w", (5, 7)), weight("b", (7,))], (3, 5), 2 * 3 * 5 * 7),
        (node("Gemm", "x w", transA=1, transB=1), [weight("w", (7, 3))], (3, 5), 2 * 5 * 3 * 7),
        # 8 in two groups -> 6, 3 x 3, the image keeps its size.
        (
            node("Conv", "x w", group=2, pads=[1, 1, 1, 1]),
            [weight("w", (6, 4, 3, 3))], (2, 8, 10, 5), 2 * (2 * 6 * 50) * 4 * 9,
        ),
        # each of the 2 x 4 x 25 inputs goes to 6 channels in 2 x 2 places.
        (
            node("ConvTranspose", "x w", strides=[2, 2]),
            [weight("w", (4, 6, 2, 2))], (2, 4, 5, 5), 2 * (2 * 4 * 25) * 6 * 4,
        ),
        (node("Einsum", "x w", equation="bij,jk->bik"), [weight("w", (5, 7))], (2, 3, 5), 420),
        (node("Einsum", "x w", equation="...ij,jk->...ik"), [weight("w", (5, 7))], (2, 3, 5), 420),
        (node("Einsum", "x", equation="ij->ji"), [], (2, 3), 0),
        (microsoft("FusedMatMul", "x w", transA=1), [weight("w", (3, 7))], (2, 3, 5), 420),
        (microsoft("FusedMatMul", "x w", transB=1), [weight("w", (7, 5))], (2, 3, 5), 420),
    ],
)  # fmt: skip
def test_products_by_hand(
    tmp_path: Path,
    made: onnx.NodeProto,
    weights: list[onnx.TensorProto],
    x: tuple[int, ...],
    operations: int,
) -> None:
    one = only(cost(tmp_path, [made], weights, x=x))
    assert (one.operations, one.arithmetic) == (operations, "fp32")


def test_int8_products(tmp_path: Path) -> None:
    w, zero = weight("w", (5, 7), I8), weight("zero", (), U8)
    one = only(cost(tmp_path, [node("MatMulInteger", "x w zero")], [w, zero], x=(3, 5), elem=U8))
    assert one == NodeCost("MatMulInteger", 210, "int8", 35 + 1, 15, 4 * 21)


def test_int8_products_of_onnxruntime(tmp_path: Path) -> None:
    w, scale = weight("w", (5, 7), I8), weight("s", (1,))
    named = [w, scale, weight("t", (7,))]
    after = node("Relu", "z", "y")
    found = cost(
        tmp_path, [microsoft("MatMulIntegerToFloat", "x w s t", "z"), after], named, x=(3, 5),
        elem=U8,
    )  # fmt: skip
    product, relu = found.nodes
    assert (product.operations, product.arithmetic, product.written_bytes) == (210, "int8", 84)
    assert relu.written_bytes == 84  # so the shape and float type behind it are known
    found = cost(
        tmp_path, [microsoft("DynamicQuantizeMatMul", "x w t", "z"), after],
        [w, weight("t", (7,))], x=(3, 5),
    )  # fmt: skip
    assert found.nodes[0].operations == 210
    assert found.nodes[0].arithmetic == "int8"


@pytest.mark.parametrize(("level", "arithmetic"), [(0, "fp32"), (4, "int8")])
def test_weights_of_four_bits(tmp_path: Path, level: int, arithmetic: str) -> None:
    packed = [weight("w", (7, 2, 16), U8), weight("s", (14,))]  # 7 x 64, blocks of 32
    made = microsoft(
        "MatMulNBits", "x w s", "z", K=64, N=7, bits=4, block_size=32, accuracy_level=level
    )
    found = cost(tmp_path, [made, node("Relu", "z")], packed, x=(3, 64))
    product = found.nodes[0]
    assert (product.operations, product.arithmetic) == (2 * 3 * 64 * 7, arithmetic)
    assert product.weight_bytes == 7 * 32 + 4 * 14  # half a byte a weight, and scales
    assert found.weight_bytes == product.weight_bytes
    assert found.nodes[1].written_bytes == 4 * 3 * 7


E4M3, I4 = TensorProto.FLOAT8E4M3FN, TensorProto.INT4


def quantised(elem: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """x [3,8] -> steps -> times w [8,4] of steps -> y, as TensorRT wants it."""
    nodes = [
        node("QuantizeLinear", "x sx zero", "xq"), node("DequantizeLinear", "xq sx zero", "xd"),
        node("DequantizeLinear", "wq sw", "wd", axis=1), node("MatMul", "xd wd"),
    ]  # fmt: skip
    scales = [weight("sx", (), H), weight("sw", (4,), H)]
    return nodes, [*scales, weight("zero", (), elem), weight("wq", (8, 4), elem)]


@pytest.mark.parametrize(("elem", "arithmetic"), [(I8, "int8"), (E4M3, "fp8")])
def test_products_of_quantised_values(tmp_path: Path, elem: int, arithmetic: str) -> None:
    """TensorRT's: they read steps of a byte each, and so does the memory count."""
    found = cost(tmp_path, *quantised(elem), x=(3, 8), elem=H, narrow=True, opset=21)
    rounding, product = found.nodes
    assert (rounding.op, rounding.read_bytes, rounding.written_bytes) == ("QuantizeLinear", 48, 24)
    assert product == NodeCost("MatMul", 2 * 3 * 8 * 4, arithmetic, 32 + 2 * 4, 24, 2 * 12)  # type: ignore[arg-type]
    assert found.weight_bytes == 32 + 2 * 4 + 2 + 1
    assert found.live_bytes == 48 + 24  # x, and its steps; never x widened again
    assert not found.uncounted


def test_a_cpu_widens_quantised_values(tmp_path: Path) -> None:
    """onnxruntime's kernels run each node, weights' too, and multiply floats."""
    found = cost(tmp_path, *quantised(I8), x=(3, 8), elem=H, half_bytes=4, opset=21)
    assert [one.op for one in found.nodes] == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul"
    ]  # fmt: skip
    widening, product = found.nodes[2:]
    assert (widening.weight_bytes, widening.written_bytes) == (32 + 4 * 4, 4 * 32)
    assert product.arithmetic == "fp16"  # which a CPU has no rate of: that of fp32
    assert (product.weight_bytes, product.read_bytes) == (0, 4 * (24 + 32))


def test_weights_of_four_bits_in_blocks(tmp_path: Path) -> None:
    nodes = [
        node("DequantizeLinear", "wq sw", "wd", axis=0, block_size=4),
        node("Transpose", "wd", "wt", perm=[0, 1]), node("MatMul", "x wt"),
    ]  # fmt: skip
    weights = [weight("wq", (8, 5), I4), weight("sw", (2, 5), H)]
    found = cost(tmp_path, nodes, weights, x=(3, 8), elem=H, narrow=True, opset=21)
    one = only(found)
    assert one == NodeCost("MatMul", 2 * 3 * 8 * 5, "fp16", 40 // 2 + 2 * 10, 2 * 24, 2 * 15)
    assert found.weight_bytes == 40 // 2 + 2 * 10


def test_attention_of_onnxruntime(tmp_path: Path) -> None:
    more = [helper.make_tensor_value_info(name, F, [2, 9, 8]) for name in "kv"]
    one = only(
        cost(tmp_path, [microsoft("MultiHeadAttention", "x k v", num_heads=2)], x=(2, 5, 8),
             more=more)
    )  # fmt: skip
    assert one.operations == 2 * (2 * 2 * 5 * 9 * 8)


def test_views_are_free_and_pickers_read_what_they_pick(tmp_path: Path) -> None:
    found = cost(
        tmp_path,
        [node("Reshape", "x shape", "x2"), node("Gather", "table x2", "g"), node("Relu", "g")],
        [weight("table", (1000, 8)), integers("shape", -1)],
        x=(2, 3), elem=TensorProto.INT64,
    )  # fmt: skip
    gather, relu = found.nodes
    assert (gather.weight_bytes, gather.read_bytes) == (4 * 6 * 8, 8 * 6)
    assert (relu.read_bytes, relu.written_bytes) == (4 * 48, 4 * 48)
    assert found.weight_bytes == 4 * 8000 + 8


def test_what_weights_alone_give_is_folded(tmp_path: Path) -> None:
    turned = node("Transpose", "w", "t", perm=[1, 0])
    one = only(cost(tmp_path, [turned, node("MatMul", "x t")], [weight("w", (7, 3))]))
    assert (one.op, one.weight_bytes) == ("MatMul", 4 * 21)


@pytest.mark.parametrize(
    ("elem", "arithmetic", "size"),
    [(H, "fp16", 2), (TensorProto.BFLOAT16, "bf16", 2), (F, "fp32", 4)],
)
def test_halves(tmp_path: Path, elem: int, arithmetic: str, size: int) -> None:
    w = helper.make_tensor("w", elem, (3, 7), np.ones(21, np.float32))
    one = only(cost(tmp_path, [node("MatMul", "x w")], [w], elem=elem))
    assert one.arithmetic == arithmetic
    assert one.bytes == size * (21 + 6 + 14)
    wide = cost(tmp_path, [node("MatMul", "x w")], [w], elem=elem, half_bytes=4)
    assert only(wide).bytes == 4 * (21 + 6 + 14)
    assert wide.weight_bytes == 4 * 21


def test_shapes_that_depend_on_lengths(tmp_path: Path) -> None:
    """As decoders compute them: a scalar length, a Range, arithmetic, then a Reshape."""
    nodes = [
        node("Shape", "x", "all"),
        node("Gather", "all two", "rows"),  # the last length, a scalar
        node("Range", "zero rows one", "order"),
        node("Unsqueeze", "order first", "row"),
        node("Mul", "rows three", "triple"),
        node("Unsqueeze", "triple first", "length"),
        node("Concat", "minus length", "shape", axis=0),
        node("Reshape", "x shape", "wide"),  # [4,3,6] -> [4,18]
        node("MatMul", "wide w", "y"),
    ]
    scalars = {"two": 2, "zero": 0, "one": 1, "three": 3}
    made = [numpy_helper.from_array(np.array(n, np.int64), name) for name, n in scalars.items()]
    made += [integers("first", 0), integers("minus", -1), weight("w", (18, 5))]
    found = cost(tmp_path, nodes, made, x=("a", 3, "b"), given=(4, 3, 6))
    product = found.nodes[-1]
    assert (product.op, product.operations) == ("MatMul", 2 * 4 * 18 * 5)
    assert product.read_bytes == 4 * 72
    assert not found.uncounted


def test_small_integers_in_external_data(tmp_path: Path) -> None:
    shape = integers("shape", 3, 2)
    onnx.external_data_helper.set_external_data(shape, "shape.data", offset=0, length=16)
    raw = shape.raw_data
    shape.ClearField("raw_data")
    (tmp_path / "shape.data").write_bytes(raw)
    nodes = [node("Reshape", "x shape", "z"), node("MatMul", "z w")]
    assert cost(tmp_path, nodes, [shape, weight("w", (2, 5))]).operations == 2 * 3 * 2 * 5


def test_large_weights_are_not_read(tmp_path: Path) -> None:
    w = weight("w", (300, 70))
    onnx.external_data_helper.set_external_data(w, "missing.data", offset=0, length=84000)
    w.ClearField("raw_data")
    found = cost(tmp_path, [node("MatMul", "x w")], [w], x=(1, 300))
    assert found.weight_bytes == 84000
    assert found.float_weights == 21000


def test_unknown_operators_are_named_and_hide_what_follows(tmp_path: Path) -> None:
    found = cost(tmp_path, [microsoft("Riddle", "x", "z"), node("Relu", "z")])
    assert found.uncounted == {"Riddle": 1, "Relu": 1}
    assert found.nodes == ()


def test_a_local_function_is_counted(tmp_path: Path) -> None:
    twice = helper.make_function(
        "here", "Twice", ["a"], ["c"], [node("Relu", "a", "b"), node("Relu", "b", "c")],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    x, y = (helper.make_tensor_value_info(name, F, [2, 3]) for name in "xy")
    graph = helper.make_graph([node("Twice", "x", domain="here")], "graph", [x], [y])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("here", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=[twice])
    onnx.save(model, tmp_path / "graph.onnx")
    found = CountedGraph(tmp_path / "graph.onnx").cost({"x": (2, 3)})
    assert [one.op for one in found.nodes] == ["Relu", "Relu"]


def live_of(folder: Path, nodes: list[onnx.NodeProto], **more: Any) -> int:
    return cost(folder, nodes, more.pop("weights", ()), **more).live_bytes


def test_activations_die_after_their_last_use(tmp_path: Path) -> None:
    n = 4 * 6
    chain = [node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "c"),
             node("Relu", "c", "y")]  # fmt: skip
    assert live_of(tmp_path, chain) == 2 * n
    kept = [*chain[:3], node("Add", "c x", "y")]  # x lives to the end
    assert live_of(tmp_path, kept) == 3 * n
    viewed = [
        node("Relu", "x", "a"), node("Reshape", "a s", "v"), node("Relu", "x", "b"),
        node("Relu", "b", "c"), node("Reshape", "v t", "w"), node("Add", "c w", "y"),
    ]  # fmt: skip
    shapes = [integers("s", 6), integers("t", 2, 3)]
    # A view costs nothing, and its bytes live as long as it does: a, b, c; or a, c, y.
    assert live_of(tmp_path, viewed, weights=shapes) == 3 * n


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input x is \[2, None\], which does not fit \[3, 3\]"):
        cost(tmp_path, [node("Relu", "x")], x=(2, "n"), given=(3, 3))
    graph = CountedGraph(tmp_path / "graph.onnx")
    with pytest.raises(InputError, match="input z is missing"):
        graph.cost({"x": (2, 3), "z": (1,)})
    with pytest.raises(InputError, match="an input x that plan does not know"):
        graph.cost({})


def test_other_inputs_take_lengths_of_the_same_name(tmp_path: Path) -> None:
    more = [helper.make_tensor_value_info("k", F, ["n", 3])]
    one = only(cost(tmp_path, [node("Add", "x k")], x=("n", 3), given=(5, 3), more=more))
    assert one.read_bytes == 4 * 30


def test_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(InputError, match=r"graph\.onnx cannot be read by onnx"):
        CountedGraph(tmp_path / "graph.onnx")


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MachineError, match="install murank with its extra 'plan'"):
        CountedGraph(tmp_path / "graph.onnx")


def test_shapes_agree_with_onnxruntime(tmp_path: Path) -> None:
    """The walk's bytes of every step, against what onnxruntime really returns."""
    onnxruntime = pytest.importorskip("onnxruntime")
    nodes = [
        node("Conv", "x w", "a", strides=[2, 2]), node("GlobalAveragePool", "a", "b"),
        node("Flatten", "b", "c"), node("Gemm", "c m", "y"),
    ]  # fmt: skip
    weights = [weight("w", (6, 3, 3, 3)), weight("m", (6, 4))]
    found = cost(tmp_path, nodes, weights, x=("n", 3, 11, 7), given=(5, 3, 11, 7), half_bytes=2)
    model = onnx.load(tmp_path / "graph.onnx")
    for name in ("a", "b"):
        model.graph.output.append(helper.make_tensor_value_info(name, F, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x: NDArray[np.float32] = np.zeros((5, 3, 11, 7), np.float32)
    y, a, b = session.run(None, {"x": x})
    assert [one.written_bytes for one in found.nodes] == [a.nbytes, b.nbytes, y.nbytes]
    assert found.input_bytes == x.nbytes
    assert found.output_bytes == y.nbytes

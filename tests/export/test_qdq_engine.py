"""Whole Q/DQ engines: what their graphs are made of, what they answer."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from longer import longer
from numpy.typing import NDArray
from onnx import TensorProto
from random_checkpoint import SIZES

from murank import Engine
from murank.folder.precision import Precision

EngineFolder = Callable[..., Path]
Crops = list[NDArray[np.uint8]]
QDQ: list[Precision] = ["int8-qdq", "fp8", "int4"]
# An export takes long. Smoothing differs by family (test_smoothing asks each); fp8 and int4 are the
# same layers in all.
OTHERS: list[tuple[str, Precision]] = [("qwen2_5_vl", "int8-qdq"), ("qwen3_vl", "int8-qdq")]
CASES: list[tuple[str, Precision]] = [
    *(("qwen2_vl", precision) for precision in QDQ),
    *longer(*OTHERS),
]
KIND = {
    "int8-qdq": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN, "int4": TensorProto.INT4
}  # fmt: skip


class Graph:
    """A graph with its shapes and types inferred."""

    def __init__(self, file: Path) -> None:
        onnx.checker.check_model(str(file))
        self.model = onnx.shape_inference.infer_shapes(onnx.load(file), strict_mode=True)
        graph = self.model.graph
        self.nodes = graph.node
        self.constants = {one.name: one for one in graph.initializer}
        self.types = {one.name: one.data_type for one in graph.initializer}
        for value in (*graph.value_info, *graph.input, *graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type
        self.made_by = {name: node for node in graph.node for name in node.output}

    def of(self, kind: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == kind]

    def layers(self) -> list[onnx.NodeProto]:
        """Products with a weight."""
        return [node for node in self.of("MatMul") if self.weight(node) is not None]

    def weight(self, node: onnx.NodeProto) -> TensorProto | None:
        """The weight of a product, quantised or not."""
        name = node.input[1]
        made = self.made_by.get(name)
        if made is not None and made.op_type == "DequantizeLinear":
            name = made.input[0]
        return self.constants.get(name)


@functools.cache
def graphs(folder: Path) -> dict[str, Graph]:
    """Those of an engine (shared: never change one)."""
    return {name: Graph(folder / "onnx" / f"{name}.onnx") for name in ("vision", "decoder")}


@pytest.mark.parametrize(("family", "precision"), CASES)
def test_types_and_opset(engine_folder: EngineFolder, family: str, precision: Precision) -> None:
    for graph in graphs(engine_folder(family, "prefix_first", precision)).values():
        assert [(one.domain, one.version) for one in graph.model.opset_import] == [("", 21)]
        pairs = graph.of("QuantizeLinear") + graph.of("DequantizeLinear")
        assert pairs
        for node in pairs:
            scale = graph.constants[node.input[1]]  # not computed
            assert scale.data_type == TensorProto.FLOAT16
            assert (onnx.numpy_helper.to_array(scale) > 0).all()
            if len(node.input) == 3:
                zero = onnx.numpy_helper.to_array(graph.constants[node.input[2]])
                assert not zero.astype(np.float32).any()
            if node.op_type == "DequantizeLinear":
                assert graph.types[node.input[0]] == KIND[precision]
                assert graph.types[node.output[0]] == TensorProto.FLOAT16
            else:
                assert graph.types[node.input[0]] == TensorProto.FLOAT16
                assert not scale.dims


@pytest.mark.parametrize(("family", "precision"), CASES)
def test_every_layer_is_quantised_but_embedding_and_answers(
    engine_folder: EngineFolder, family: str, precision: Precision
) -> None:
    """And, with int4, those of these small models whose inputs no block divides."""
    for name, graph in graphs(engine_folder(family, "prefix_first", precision)).items():
        plain, narrow = [], 0
        for node in graph.layers():
            weight = graph.weight(node)
            assert weight is not None
            if weight.data_type != KIND[precision]:
                plain.append(weight)
                continue
            narrow += 1
            given = graph.made_by[node.input[0]]
            assert (given.op_type == "DequantizeLinear") == (precision != "int4")
            assert graph.types[node.output[0]] == TensorProto.FLOAT16
        assert narrow >= 3
        kept = plain.pop(0 if name == "vision" else -1)
        wide = TensorProto.FLOAT16 if name == "vision" else TensorProto.FLOAT
        assert kept.data_type == wide
        for weight in plain:
            assert precision == "int4"
            assert weight.data_type == TensorProto.FLOAT16
            assert weight.dims[0] % 64


@pytest.mark.parametrize("precision", ["int8-qdq", "fp8"])
def test_what_layers_share_is_quantised_once(
    engine_folder: EngineFolder, precision: Precision
) -> None:
    found = graphs(engine_folder("qwen2_vl", "prefix_first", precision))
    layers, blocks = (SIZES["qwen2_vl"][count] for count in ("layers", "depth"))
    # Of the last layer, q reads the last token alone, k and v all.
    assert len(found["decoder"].of("QuantizeLinear")) == 4 * layers + 1
    assert len(found["vision"].of("QuantizeLinear")) == 4 * blocks + 2
    assert len(found["decoder"].layers()) == 7 * layers + 1
    assert len(found["vision"].layers()) == 6 * blocks + 2 + 1


@pytest.mark.parametrize("precision", QDQ)
def test_softmax_scores_and_norms_stay_float32(
    engine_folder: EngineFolder, precision: Precision
) -> None:
    for name, graph in graphs(engine_folder("qwen2_vl", "prefix_first", precision)).items():
        # This family's tower has LayerNorms, which widen what they are given on their own.
        for kind in ("Softmax", "Sqrt") if name == "decoder" else ("Softmax",):
            nodes = graph.of(kind)
            assert nodes
            assert {graph.types[node.input[0]] for node in nodes} == {TensorProto.FLOAT}


@pytest.mark.parametrize(("family", "precision"), CASES)
def test_answers_are_near_those_of_float32(
    engine_folder: EngineFolder, crops: Crops, family: str, precision: Precision
) -> None:
    """Half as far off as the model's answers are wide, at most.

    They are 1.7 wide: 64 channels of size 1 by weights of 0.15 * sqrt(2), Yes without No. fp8
    rounds a channel and a weight by 3%: after attention and MLP, in tower and decoder, 9% of 1.7
    is lost, a fifth of what is allowed. A graph that computes something else is off by
    sqrt(2) * 1.7, three times what is allowed.
    """
    wide = 0.15 * np.sqrt(2 * 64)
    found = []
    for one in ("fp32", precision):
        folder = engine_folder(family, "prefix_first", one)
        engine = Engine.from_pretrained(folder, providers="cpu")
        mu = engine.mu(crops[0], crops[1:9]).astype(np.float64)
        found.append(np.log(mu) - np.log1p(-mu))
    difference = np.sqrt(np.square(found[1] - found[0]).mean())
    assert 0 < difference < wide / 2


@pytest.mark.parametrize("precision", QDQ)
def test_no_pair_depends_on_those_beside_it(
    engine_folder: EngineFolder, crops: Crops, precision: Precision
) -> None:
    """All sizes of steps are fixed. What is left is the order of sums, in float16."""
    engine = Engine.from_pretrained(engine_folder(precision=precision), providers="cpu")
    others = [np.zeros_like(crops[0]), np.full_like(crops[0], 255), *crops[1:9]]
    alone = np.concatenate([engine.mu(crops[0], [one]) for one in others])
    for order in (np.arange(10), np.arange(10)[::-1]):
        together = engine.mu(crops[0], [others[i] for i in order])
        np.testing.assert_allclose(together, alone[order], atol=2e-3)
    np.testing.assert_array_equal(engine.mu(crops[0], others), engine.mu(crops[0], others))


@pytest.mark.parametrize(("precision", "share"), [("int8-qdq", 1.99), ("fp8", 1.99), ("int4", 2.4)])
def test_weights_take_their_share_of_float16(
    engine_folder: EngineFolder, precision: Precision, share: float
) -> None:
    """Blocks of 64 inputs hold a scale for each; 96 inputs, as `down` has here, stay float16."""

    def weights(one: Precision) -> int:
        file = engine_folder(precision=one) / "onnx" / "decoder.onnx"
        graph = onnx.load(file).graph
        return sum(
            len(w.raw_data) for w in graph.initializer if len(w.dims) == 2 and 2 not in w.dims
        )

    assert weights("fp16") / weights(precision) >= share

"""Operators that an engine may hold: those that compute, wherever in the file they stand."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx.defs
import pytest
from engine_folder import make_engine, relist
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from murank import Engine, InputError
from murank.folder.contents import check_graph
from murank.folder.onnx_references import graph_facts
from murank.folder.operators import ALLOWED

# Of ONNX's own, on purpose: why, see murank/folder/operators.py.
LEFT_OUT = frozenset((
    "Loop", "Scan", "SequenceMap",
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
    "ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit",
    "TfIdfVectorizer",
    "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss",
    "BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "MelWeightMatrix", "STFT",
    "Optional", "OptionalGetElement", "OptionalHasElement",
))  # fmt: skip

MINIATURE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
FLOAT = TensorProto.FLOAT


def graph(*nodes: NodeProto) -> GraphProto:
    values = [helper.make_tensor_value_info(name, FLOAT, [4]) for name in "xy"]
    return helper.make_graph(list(nodes), "g", values[:1], values[1:])


def one(operator: str, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)


def in_function(node: NodeProto) -> ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Relu", ["x"], ["y"], [node], opsets[:1])
    made = graph(helper.make_node("Relu", ["x"], ["y"], domain="local"))
    return helper.make_model(made, functions=[function], opset_imports=opsets)


def write(made: ModelProto, folder: Path) -> Path:
    (folder / "graph.onnx").write_bytes(made.SerializeToString())
    return folder / "graph.onnx"


def test_the_lists_are_onnxs_own() -> None:
    known = {
        schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain
    }
    assert not ALLOWED & LEFT_OUT
    if tuple(map(int, onnx.__version__.split(".")[:2])) <= (1, 23):
        assert known <= ALLOWED | LEFT_OUT


@pytest.mark.parametrize("operator", sorted(LEFT_OUT))
def test_left_out(tmp_path: Path, operator: str) -> None:
    with pytest.raises(InputError, match=rf"graph\.onnx holds the operator '{operator}'"):
        check_graph(write(helper.make_model(graph(one(operator))), tmp_path))


@pytest.mark.parametrize(
    ("operator", "domain"),
    [
        ("EPContext", "com.microsoft"), ("PyOp", "ai.onnx.contrib"), ("Relu", "mine"),
        ("TreeEnsemble", "ai.onnx.ml"), ("Gradient", "ai.onnx.preview.training"), ("Foo", ""),
        ("", ""), ("relu", ""), ("Relu\n", ""),
    ],
)  # fmt: skip
def test_others(tmp_path: Path, operator: str, domain: str) -> None:
    with pytest.raises(InputError, match=r"graph\.onnx") as found:
        check_graph(write(helper.make_model(graph(one(operator, domain))), tmp_path))
    assert "\n" not in str(found.value)
    assert domain in str(found.value)


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_what_computes(tmp_path: Path, domain: str) -> None:
    for operator in ("Conv", "Softmax", "If", "LpNormalization"):
        check_graph(write(helper.make_model(graph(one(operator, domain))), tmp_path))


def test_inside_branches_and_functions(tmp_path: Path) -> None:
    bad = graph(one("Loop"))
    for node in (
        one("If", then_branch=bad, else_branch=graph(one("Relu"))),
        one("If", else_branch=graph(one("If", then_branch=bad))),
        one("Relu", hidden=[graph(one("Relu")), bad]),  # in an attribute that nobody reads
    ):
        with pytest.raises(InputError, match="'Loop'"):
            check_graph(write(helper.make_model(graph(node)), tmp_path))
    for node in (one("Loop"), one("Relu")):
        with pytest.raises(InputError, match="functions"):
            check_graph(write(in_function(node), tmp_path))


def wrapped(number: int, content: bytes) -> bytes:
    """A short field."""
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(
    ("names", "counts"), [(("Loop", "Relu"), "Relu"), (("Relu", "Loop"), "Loop")]
)
def test_the_last_name_of_a_node_counts(
    tmp_path: Path, names: tuple[str, str], counts: str
) -> None:
    """As protobuf reads a field that is there twice."""
    node = b"".join(wrapped(4, name.encode()) for name in names)
    content = wrapped(7, wrapped(1, node))
    assert ModelProto.FromString(content).graph.node[0].op_type == counts
    (tmp_path / "graph.onnx").write_bytes(content)
    assert graph_facts(tmp_path / "graph.onnx").operators == {("", counts)}


def endless() -> ModelProto:
    """An encoder whose loop ends after 2**62 rounds."""
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    count = helper.make_tensor_value_info("count", TensorProto.INT64, [])
    go_on = helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["yes"], ["go_on"])], "body", [count, yes], [go_on]
    )
    nodes = [helper.make_node("Loop", ["rounds", "start"], [], body=body), one("Relu")]
    made = graph(*nodes)
    for name, value in (("rounds", np.int64(1 << 62)), ("start", np.bool_(True))):
        made.initializer.append(numpy_helper.from_array(np.array(value), name))
    return helper.make_model(made)


def test_a_listed_loop_that_never_ends_is_not_begun(tmp_path: Path) -> None:
    make_engine(tmp_path / "engine")
    (tmp_path / "engine/onnx/encoder.onnx").write_bytes(endless().SerializeToString())
    relist(tmp_path / "engine", "onnx/encoder.onnx")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"encoder\.onnx"):
        Engine.from_pretrained(tmp_path / "engine")
    assert time.monotonic() - start < 60


def test_the_shipped_engine() -> None:
    for file in MINIATURE.glob("onnx/*.onnx"):
        assert check_graph(file).operators

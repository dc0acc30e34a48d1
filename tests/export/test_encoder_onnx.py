"""Encoders that are ONNX files already, in the forms that exporters give them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from plain_encoder import (
    DIM,
    SIZE,
    by_hand,
    exported,
    images,
    model,
    normalised,
    save,
    unit,
    weight,
)

from murank import InputError
from murank_export import EncoderSettings
from murank_export.encoders.encoder_graph import IMAGENET_MEAN, IMAGENET_STD


def test_a_plain_file_with_the_customs_of_torchreid(tmp_path: Path) -> None:
    made, found = exported(save(model(), tmp_path))
    assert made.dim == DIM
    assert made.preprocessing.to_json() == {
        "height": 8, "width": 4, "resample": "bilinear", "shortest_edge": None
    }  # fmt: skip
    assert (made.mean, made.std) == (IMAGENET_MEAN, IMAGENET_STD)
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)


def test_half_precision(tmp_path: Path) -> None:
    _, found = exported(save(model(kind=TensorProto.FLOAT16), tmp_path))
    np.testing.assert_allclose(found, by_hand(), atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_mean_and_std_and_filter_as_told(tmp_path: Path) -> None:
    told = EncoderSettings(resample="lanczos", mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    made, found = exported(save(model(), tmp_path), told)
    assert made.preprocessing.resample == "lanczos"
    np.testing.assert_allclose(found, by_hand(told.mean, told.std), atol=1e-6)


@pytest.mark.parametrize(
    "names",
    [("images", "features"), ("features", "images"), ("images", "x"), ("murank_input", "y")],
)
def test_names_that_the_engine_gives_are_taken(tmp_path: Path, names: tuple[str, str]) -> None:
    _, found = exported(save(model(names=names), tmp_path))
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)


def test_weights_and_inner_values_may_have_those_names_too(tmp_path: Path) -> None:
    made = model()
    made.graph.initializer[0].name, made.graph.initializer[1].name = "features", "bias"
    made.graph.node[0].input[:] = ["x", "features", "bias"]
    made.graph.node[0].output[:] = ["images"]
    made.graph.node.append(helper.make_node("Identity", ["images"], ["y"]))
    _, found = exported(save(made, tmp_path))
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)


@pytest.mark.parametrize("name", ["x", "images"])
def test_branches_see_the_images(tmp_path: Path, name: str) -> None:
    """The body of an If uses a value of the graph around it, which is renamed."""
    made = model(names=(name, "y"))
    conv = made.graph.node[0]
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    branches = {}
    for branch in ("then", "else"):
        node = helper.make_node("Conv", list(conv.input), [f"{branch}_y"])
        result = helper.make_tensor_value_info(f"{branch}_y", TensorProto.FLOAT, None)
        branches[f"{branch}_branch"] = helper.make_graph([node], branch, [], [result])
    del made.graph.node[:]
    made.graph.node.append(helper.make_node("If", ["yes"], ["y"], **branches))
    _, found = exported(save(made, tmp_path))
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)


@pytest.mark.parametrize("ends", [True, False])
def test_loops_are_refused_before_they_run(tmp_path: Path, *, ends: bool) -> None:
    made = model()
    values = [
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (
            ("count", TensorProto.INT64), ("yes", TensorProto.BOOL), ("go_on", TensorProto.BOOL)
        )
    ]  # fmt: skip
    body = helper.make_graph(
        [helper.make_node("Identity", ["yes"], ["go_on"])], "body", values[:2], values[2:]
    )
    made.graph.node.insert(0, helper.make_node("Loop", ["rounds", "start"], [], body=body))
    rounds = np.array(1 if ends else 1 << 62)
    for name, value in (("rounds", rounds), ("start", np.array(True))):
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    with pytest.raises(InputError, match=r"source\.onnx"):
        exported(save(made, tmp_path))


def test_functions_are_written_out(tmp_path: Path) -> None:
    made = model()
    (conv,) = made.graph.node
    standard = helper.make_opsetid("", 17)
    made.functions.append(
        helper.make_function(
            "local", "Conv", list(conv.input), list(conv.output), [conv], [standard]
        )
    )
    made.opset_import.append(helper.make_opsetid("local", 1))
    conv.domain = "local"
    _, found = exported(save(made, tmp_path))
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)


def several() -> onnx.ModelProto:
    """Features beside class scores."""
    made = model()
    made.graph.node.append(helper.make_node("ReduceSum", ["y"], ["scores"]))
    made.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, None))
    return made


def test_several_outputs(tmp_path: Path) -> None:
    source = save(several(), tmp_path)
    with pytest.raises(InputError, match=r"source\.onnx"):
        exported(source)
    with pytest.raises(InputError, match="--encoder-output"):
        exported(source, EncoderSettings(output="z"))
    _, found = exported(source, EncoderSettings(output="y"))
    np.testing.assert_allclose(found, by_hand(), atol=1e-6)


def test_tokens_the_first_of_which_is_the_feature(tmp_path: Path) -> None:
    made = model()
    made.graph.initializer.append(numpy_helper.from_array(np.array([0, 3, 2]), "shape"))
    made.graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["tokens"]))
    made.graph.output[0].name = "tokens"
    encoder, found = exported(save(made, tmp_path))
    assert encoder.dim == 2
    x = normalised(images(), IMAGENET_MEAN, IMAGENET_STD).reshape(5, -1)
    rows = (x @ weight().reshape(DIM, -1).T + np.arange(DIM))[:, :2]
    np.testing.assert_allclose(found, unit(rows), atol=1e-5)


def pooled(dims: tuple[Any, ...]) -> onnx.ModelProto:
    """Takes any size: the mean of each channel."""
    made = model(dims=dims)
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.append(helper.make_node("GlobalAveragePool", ["x"], ["y"]))
    return made


def test_a_free_size_must_be_told(tmp_path: Path) -> None:
    source = save(pooled(("batch", 3, "height", "width")), tmp_path)
    with pytest.raises(InputError, match="images of any size: pass --encoder-size"):
        exported(source)
    made, found = exported(source, EncoderSettings(size=SIZE))
    assert (made.preprocessing.height, made.preprocessing.width) == SIZE
    rows = normalised(images(), IMAGENET_MEAN, IMAGENET_STD).mean((2, 3))
    np.testing.assert_allclose(found, unit(rows), atol=1e-5)


def test_a_size_beside_the_one_it_takes(tmp_path: Path) -> None:
    source = save(model(), tmp_path)
    exported(source, EncoderSettings(size=SIZE))
    with pytest.raises(InputError, match=r"source\.onnx"):
        exported(source, EncoderSettings(size=(4, 8)))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (model(dims=("batch", 1, *SIZE)), r"one input, images \[B,3,H,W\]"),
        (model(dims=("batch", *SIZE, 1)), r"or \[B,H,W,3\]"),
        (model(dims=("batch", 3, 32)), r"one input, images \[B,3,H,W\]"),
        (model(kind=TensorProto.INT8), "must take float images"),
        (model(kind=TensorProto.DOUBLE), "must take float images"),
        (model(opset=8, ir_version=8), "opset 8; export it with a later one"),
        (model(dims=("batch", None, *SIZE)), None),  # channels not told: three will do
    ],
)
def test_inputs(tmp_path: Path, made: onnx.ModelProto, message: str | None) -> None:
    source = save(made, tmp_path)
    if message is None:
        exported(source)
        return
    with pytest.raises(InputError, match=rf"source\.onnx.*{message}"):
        exported(source)


def two_inputs() -> onnx.ModelProto:
    made = model()
    made.graph.input.append(helper.make_tensor_value_info("camera", TensorProto.INT64, ["batch"]))
    return made


def one_row_for_all() -> onnx.ModelProto:
    made = model()
    made.graph.node.append(helper.make_node("ReduceMean", ["y"], ["one"], axes=[0], keepdims=1))
    made.graph.output[0].name = "one"
    return made


def unknown_operator() -> onnx.ModelProto:
    made = model()
    made.graph.node[0].op_type = "Nose"
    return made


def of_another_domain() -> onnx.ModelProto:
    made = model()
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, "one input"),
        (one_row_for_all, "expected one row an image"),
        (unknown_operator, "does not run"),
        (of_another_domain, "no version of ONNX"),
    ],
)
def test_graphs_that_will_not_do(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        exported(save(make(), tmp_path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x08\x12", b"PK\x03\x04"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "source.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"source\.onnx") as error:
        exported(tmp_path / "source.onnx")
    assert "\n" not in str(error.value)

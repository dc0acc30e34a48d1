"""Encoders whose files are for a fixed number of images: freed, or one by one if values change."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from plain_encoder import (
    DIM,
    NONE,
    ROUNDING,
    SIZE,
    Step,
    append_steps,
    images,
    normalised,
    save,
    unit,
)
from plain_encoder import model as plain

from murank import Engine
from murank.cli import main
from murank_export.encoders.colours import IMAGENET_MEAN, IMAGENET_STD
from murank_export.encoders.encoder_graph import export_encoder


def traced(count: int, steps: Sequence[Step], opset: int = 17) -> onnx.ModelProto:
    """The plain encoder of `count` images [n,6,1,1], then steps."""
    made = plain(dims=(count, 3, *SIZE), opset=opset)
    graph = made.graph
    nodes, name = append_steps(graph, "y", steps)
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return made


def shape(*lengths: int) -> NDArray[np.int64]:
    return np.array(lengths, np.int64)


def rows(*lengths: int, seed: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(lengths).astype(np.float32)


def by_its_other_name(made: onnx.ModelProto) -> onnx.ModelProto:
    """With the domain of ONNX's own operators spelled out."""
    made.opset_import[0].domain = "ai.onnx"
    return made


def kinds(n: int) -> dict[str, onnx.ModelProto]:
    """As exporters write `n` images into a graph."""
    flat: Step = ("Reshape", ["it", shape(n, 6)], {})
    tokens: Step = ("Reshape", ["it", shape(n, 3, 2)], {})
    token = np.repeat(rows(1, 1, 2), n, 0)
    joined: Step = ("Concat", [token, "it"], {"axis": 1})
    turned: Step = ("Transpose", ["it"], {"perm": [1, 0, 2]})
    all_flat: Step = ("Reshape", ["it", shape(n, -1)], {})
    return {
        "as it is": traced(n, []),
        "flat": traced(n, [flat]),
        "flat, the rest told": traced(n, [all_flat]),
        "channels shuffled": traced(n, [
            ("Reshape", ["it", shape(n, 2, 3, 1, 1)], {}),
            ("Transpose", ["it"], {"perm": [0, 2, 1, 3, 4]}),
            ("Reshape", ["it", shape(n, 6, 1, 1)], {}),
        ]),
        "a class token": traced(n, [tokens, joined, ("MatMul", ["it", rows(2, 4)], {}), (
            "Gather", ["it", np.array(1)], {"axis": 1},
        )]),
        "heads, tokens first": traced(n, [
            tokens, joined, turned,
            ("Reshape", ["it", shape(4, 2 * n, 1)], {}),
            ("Transpose", ["it"], {"perm": [1, 0, 2]}),
            ("Softmax", ["it"], {"axis": 1}),
            ("Transpose", ["it"], {"perm": [1, 0, 2]}),
            ("Reshape", ["it", shape(4 * n, 2)], {}),
            ("Gemm", ["it", rows(2, 3)], {}),
            ("Reshape", ["it", shape(4, n, 3)], {}),
            turned, ("ReduceMax", ["it"], {"axes": [1], "keepdims": 0}),
        ]),
        "windows": traced(n, [
            ("Reshape", ["it", shape(3 * n, 2)], {}), ("Softmax", ["it"], {"axis": 1}),
            ("Reshape", ["it", shape(n, 3, 2)], {}), all_flat,
        ]),
        "squeezed": traced(n, [("Squeeze", ["it"], {})]),
        "squeezed, an older opset": traced(n, [("Squeeze", ["it"], {"axes": [2, 3]})], 11),
        "operators of ai.onnx": by_its_other_name(traced(n, [("Squeeze", ["it"], {})])),
        "resized": traced(n, [
            ("Resize", ["it", "", "", shape(n, 6, 2, 2)], {}),
            ("GlobalAveragePool", ["it"], {}), flat,
        ]),
        "of its shape": traced(n, [
            ("Shape", ["it"], {}), ("Gather", ["it", shape(0)], {"axis": 0}),
            ("Concat", ["it", shape(-1)], {"axis": 0}), ("Reshape", ["y", "it"], {}),
        ]),
    }  # fmt: skip


def one_by_one(source: Path, count: int) -> NDArray[Any]:
    """The file's own answers, each image in all places of the batch."""
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    pixels = normalised(images(), IMAGENET_MEAN, IMAGENET_STD)
    found = [session.run(None, {"x": np.repeat(one[None], count, 0)})[0] for one in pixels]
    width = found[0].size // count
    return unit(np.stack([one.reshape(count, width)[0] for one in found]))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("name", kinds(1))
def test_freed(tmp_path: Path, name: str, count: int) -> None:
    source = save(kinds(count)[name], tmp_path)
    notes = list[str]()
    made = export_encoder(source, tmp_path / "encoder.onnx", NONE, notes.append)
    (note,) = (one for one in notes if "batch" in one)
    assert f"fixed to {count}; it is freed" in note
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    (found,) = session.run(["features"], {"images": images()})
    assert found.shape == (len(images()), made.dim)
    np.testing.assert_allclose(found, one_by_one(source, count), atol=ROUNDING, rtol=0)
    assert not [one for one in tmp_path.iterdir() if one.name.startswith("tmp")]


@pytest.mark.parametrize("count", [1, 4])
def test_one_by_one_where_values_would_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    """The first image's values are taken from everybody's: of one image its own."""
    half = np.float32(0.5).reshape(1)
    mixed = traced(count, [
        ("Slice", ["it", shape(0), shape(1), shape(0)], {}), ("Mul", ["it", half], {}),
        ("Sub", ["y", "it"], {}),
    ])  # fmt: skip
    source, engine = save(mixed, tmp_path), tmp_path / "engine"
    assert main(["export", "--encoder", str(source), "-o", str(engine)]) == 0
    _, err = capsys.readouterr()
    assert f"note: {source}: its batch is fixed to {count} and cannot be freed" in err
    loaded = Engine.from_pretrained(engine, providers="cpu")
    assert loaded.encoder is not None
    assert loaded.encoder.session.longest("images", 0) == 1
    found = loaded.encoder.features(images())
    np.testing.assert_allclose(found, one_by_one(source, count), atol=ROUNDING, rtol=0)
    assert found.shape == (5, DIM)
    assert main(["inspect", "--verify", "--providers", "cpu", str(engine)]) == 0

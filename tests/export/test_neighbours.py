"""Graphs whose answer for an image depends on its batch are refused by what they answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_folder import relist
from onnx import TensorProto, helper, numpy_helper
from plain_encoder import images, model, save

from murank import InputError
from murank.cli import main
from murank.engine.neighbours import encoder_fault
from murank_export import ExportSettings, export_engine

Node = tuple[str, Sequence[str], dict[str, Any]]
Nodes = Sequence[Node]
CONSTANTS = {
    "first": np.array([0]), "second": np.array([1]), "axis": np.array(0), "zero": np.float32(0),
    "little": np.float32(3e-3), "half": np.float32(0.5),
    "minus": np.array([-1]), "end": np.array([-100]),
}  # fmt: skip


def behind(made: onnx.ModelProto, nodes: Nodes) -> onnx.ModelProto:
    """Put nodes behind the first output; each takes `it`, or results by number, and constants."""
    graph = made.graph
    name, last = graph.output[0].name, "before_it"
    for node in graph.node:
        node.output[:] = [last if one == name else one for one in node.output]
        node.input[:] = [last if one == name else one for one in node.input]
    for key, value in CONSTANTS.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"my_{key}"))
    for place, (kind, inputs, attributes) in enumerate(nodes):
        named = [
            one and (last if one == "it" else f"my_{one}" if one in CONSTANTS else f"result_{one}")
            for one in inputs
        ]
        result = name if place == len(nodes) - 1 else f"result_{place}"
        graph.node.append(helper.make_node(kind, named, [result], **attributes))
    return made


MEAN: Node = ("ReduceMean", ["it"], {"axes": [0]})
ENCODERS: dict[str, tuple[Nodes, str]] = {
    "mean added": ([MEAN, ("Add", ["it", "0"], {})], "other images are in its batch"),
    "mean taken away": ([MEAN, ("Sub", ["it", "0"], {})], "other images are in its batch"),
    "a little of the mean": (
        [MEAN, ("Mul", ["0", "little"], {}), ("Add", ["it", "1"], {})],
        "other images are in its batch",
    ),
    "softmax over the batch": ([("Softmax", ["it"], {"axis": 0})], "other images are in its batch"),
    "sums so far": ([("CumSum", ["it", "axis"], {})], "other images are in its batch"),
    "rows turned": (
        [("Slice", ["it", "minus", "end", "first", "minus"], {})], "other images are in its batch"
    ),
    "normalised by the batch": (
        [
            MEAN, ("Sub", ["it", "0"], {}), ("Mul", ["1", "1"], {}),
            ("ReduceMean", ["2"], {"axes": [0]}), ("Add", ["3", "little"], {}), ("Sqrt", ["4"], {}),
            ("Div", ["1", "5"], {}),
        ],
        "other images are in its batch",
    ),
    "constant": ([("Mul", ["it", "zero"], {}), ("Add", ["0", "half"], {})], "the same feature"),
    "zeros": ([("Mul", ["it", "zero"], {})], "length is not 1"),
    "one number": ([("ReduceSum", ["it", "second"], {})], "one number"),
    "a class": ([("ArgMax", ["it"], {"axis": 1})], "the same feature|one number|length"),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "message"), ENCODERS.values(), ids=list(ENCODERS))
def test_encoders(tmp_path: Path, nodes: Nodes, message: str) -> None:
    source = save(behind(model(), nodes), tmp_path)
    with pytest.raises(InputError, match=rf"source\.onnx .*({message})") as error:
        export_engine(ExportSettings(tmp_path / "engine", encoder=source))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_what_is_right_passes_and_verify_finds_what_is_not(
    tmp_path: Path, kind: int, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, verify = tmp_path / "engine", ["inspect", "--verify", "--quiet", "--providers", "cpu"]
    export_engine(ExportSettings(engine, encoder=save(model(kind=kind), tmp_path)))
    assert main([*verify, str(engine)]) == 0
    graph = engine / "onnx/encoder.onnx"
    onnx.save(behind(onnx.load(graph), [MEAN, ("Add", ["it", "0"], {})]), graph)
    relist(engine, "onnx/encoder.onnx")
    assert main([*verify, str(engine)]) == 4
    out, err = capsys.readouterr()
    assert "encoder  DIFFERS" in out
    assert "engine: the encoder gives " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("graph", "axis", "message"),
    [
        ("vision", 0, "other vision tokens"), ("decoder", 1, "other pairs"),
        ("decoder", 0, "other pairs"),
    ],
)  # fmt: skip
def test_scorers(
    engine_copy: Path,
    capsys: pytest.CaptureFixture[str],
    graph: str,
    axis: int,
    message: str,
) -> None:
    """Images, candidates and queries of a batch that know of each other."""
    file = engine_copy / f"onnx/{graph}.onnx"
    made = onnx.load(file, load_external_data=False)
    mean: Node = ("ReduceMean", ["it", ["first", "second"][axis]], {})
    # What is taken and given back: alone the answers are those of export.
    nodes: Nodes = [mean, ("Sub", ["0", "it"], {}), ("Add", ["it", "1"], {})]
    onnx.save(behind(made, nodes), file)
    relist(engine_copy, f"onnx/{graph}.onnx")
    assert main(["inspect", "--verify", "--quiet", "--providers", "cpu", str(engine_copy)]) == 4
    _, err = capsys.readouterr()
    assert f"the scorer {'gives an image ' if axis == 0 and graph == 'vision' else ''}" in err
    assert message in err


class Random:
    """An encoder with dropout left on; onnxruntime takes most of them out."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def features(self, pixels: Any) -> Any:
        rows = pixels.reshape(len(pixels), -1) * self.random.integers(0, 2, pixels[0].size)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_answers_that_are_drawn() -> None:
    encoder: Any = Random()
    assert "each time" in str(encoder_fault(encoder, images()))

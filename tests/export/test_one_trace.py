"""A graph traced once is the graph that torch's own exporter makes in two traces."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from longer import longer
from onnx import ModelProto, helper
from quick_exporter import as_it_is
from torch import Tensor, nn
from torch.export import ExportedProgram

from murank.backends.onnx.session import Session, SessionSettings
from murank.folder.precision import Precision
from murank.images import Preprocessing
from murank.prompt import default_template
from murank_export.graphs import one_trace
from murank_export.graphs.decoder import Decoder
from murank_export.graphs.onnx_file import _export, export_decoder, export_vision
from murank_export.graphs.vision import VisionTower
from murank_export.mllm.activations import collect_activations
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.mllm.tokens import prompt_tokens

Write = Callable[[Path], None]
PRECISIONS: tuple[Precision, ...] = (
    "fp32", "fp16", "bf16", "int8", "w8", "w8a16", "int8-qdq", "fp8", "int4",
)  # fmt: skip
ALL = [
    (family, precision, graph)
    for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
    for precision in PRECISIONS
    for graph in ("vision", "decoder")
]


def of_checkpoint(folder: Path, precision: Precision, graph: str) -> Write:
    """What exports one graph of a checkpoint."""
    loaded = load_checkpoint(folder)
    grid, size = loaded.grid(None)
    how = Preprocessing(*size, "bicubic")
    tokens = prompt_tokens(loaded, default_template(), "prefix_first")
    inputs = collect_activations(loaded, tokens, grid, how)
    visual = loaded.model.model.visual
    if graph == "vision":
        tower = VisionTower(visual, grid, precision, inputs, mean=loaded.mean, std=loaded.std)
        return lambda file: export_vision(tower, file, (how.height, how.width))
    decoder, text = (
        Decoder(loaded.model, (0, 1), precision, inputs),
        loaded.model.config.text_config,
    )
    return lambda file: export_decoder(
        decoder, file, vision_tokens=grid.num_tokens, hidden=text.hidden_size
    )


@pytest.mark.parametrize(
    ("family", "precision", "graph"), [("qwen2_vl", "fp32", "vision"), *longer(*ALL)]
)
def test_the_same_graph(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    precision: Precision,
    graph: str,
) -> None:
    write = of_checkpoint(checkpoint(family), precision, graph)
    taken: list[bool] = []
    known = one_trace._is_in_onnx

    def watched(program: ExportedProgram) -> bool:
        taken.append(known(program))
        return taken[-1]

    monkeypatch.setattr(one_trace, "_is_in_onnx", watched)
    write(tmp_path / "once.onnx")
    assert taken == [True]
    monkeypatch.setattr(one_trace, "_is_in_onnx", lambda _: False)
    as_it_is(monkeypatch)
    write(tmp_path / "twice.onnx")
    once, twice = (onnx.load(tmp_path / name) for name in ("once.onnx", "twice.onnx"))
    assert wired(once) == wired(twice)


def wired(model: ModelProto) -> list[Any]:
    """Inputs, and of each output what it is made of: operators, options and the bytes of weights.

    No names, and no order but the graph's. The last axis may be counted from behind, and no size
    is 0.
    """
    graph = model.graph
    given = [(one.name, one.type.SerializeToString()) for one in graph.input]
    made_of = {name: digest(name, kind) for name, kind in given}
    for one in graph.initializer:
        made_of[one.name] = digest(one.data_type, one.dims, one.raw_data)
    for node in graph.node:
        options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        options.pop("allowzero", None)
        if node.op_type == "Split":
            options.pop("axis")
        sources = [made_of.get(name) for name in node.input]
        for place, name in enumerate(node.output):
            made_of[name] = digest(node.op_type, sorted(options.items()), sources, place)
    return [*given, *((one.name, made_of[one.name]) for one in graph.output)]


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Running(nn.Module):
    """An operator that ONNX has in other words."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.softsign(x).to(torch.float64, copy=True)


def test_other_operators_are_rewritten(tmp_path: Path) -> None:
    before = ExportedProgram.run_decompositions
    rows = torch.export.Dim("rows", min=1, max=64)
    file = tmp_path / "graph.onnx"
    _export(Running(), (torch.zeros(3, 2),), file, ["x"], ["y"], ({0: rows},))
    assert ExportedProgram.run_decompositions is before
    x = np.array([[-1, 3]], np.float32)
    (found,) = Session(file, SessionSettings("cpu")).run({"x": x}, ["y"])
    np.testing.assert_array_equal(found.numpy(), [[-0.5, 0.75]])

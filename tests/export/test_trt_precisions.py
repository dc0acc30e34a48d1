"""Engines of every precision as plans: run by a made-up TensorRT, and counted by `murank plan`."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from trt_fakes import FakeGpu, FakeTensorRT

from murank import Engine
from murank.backends.trt import BuildSettings, build_plans, this_machine
from murank.backends.trt import cuda as _cuda
from murank.folder.manifest import read_manifest
from murank.folder.precision import Precision
from murank_export.plan.devices import DEVICES
from murank_export.plan.prediction import Prediction, Workload, plan_engine
from murank_export.plan.work import EngineRuns

EngineFolder = Callable[..., Path]
QUANTISED: tuple[Precision, ...] = ("int8-qdq", "fp8", "int4")


def fake_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    """Not before an export: PyTorch, too, looks whether there is a TensorRT."""
    fake = FakeGpu("8.9")
    monkeypatch.setattr(_cuda, "open_gpu", lambda _index=0: fake)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT())
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fake


@pytest.mark.parametrize("precision", ["fp16", *QUANTISED])
def test_plans_answer_as_the_graphs_do(
    engine_folder: EngineFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    crops: list[NDArray[np.uint8]],
    precision: Precision,
) -> None:
    """Types of all inputs and outputs, prompt and rows included, fit one another."""
    engine = Path(shutil.copytree(engine_folder(precision=precision), tmp_path / "engine"))
    gpu = fake_gpu(monkeypatch, tmp_path)
    build_plans(engine, BuildSettings(max_queries=2), this_machine())
    plans = Engine.from_pretrained(engine, providers="tensorrt-plans")
    cpu = Engine.from_pretrained(engine, providers="cpu", threads=1)
    wanted = cpu.mu(crops[0], crops[1:6])
    np.testing.assert_allclose(plans.mu(crops[0], crops[1:6]), wanted, atol=2e-3)
    assert gpu.downloads == 1  # logits


def planned(engine: Path) -> Prediction:
    return plan_engine(engine, DEVICES["l4"], Workload())


@pytest.mark.parametrize("precision", ["fp16", "bf16", *QUANTISED])
def test_products_are_counted_in_their_arithmetic(
    engine_folder: EngineFolder, precision: Precision
) -> None:
    plan = planned(engine_folder(precision=precision))
    assert plan.uncounted == {}
    wanted = {"int8-qdq": "int8", "int4": "fp16"}.get(precision, precision)
    (score,) = [one.work for one in plan.stages if one.work.stage == "score"]
    ((run, _),) = score.runs
    products = [step for step in run.steps if step.operations and step.weight_bytes]
    narrow = sum(step.operations for step in products if step.kind == wanted)
    assert narrow > 0.9 * sum(step.operations for step in products)


@pytest.mark.parametrize("precision", QUANTISED)
def test_weights_are_counted_as_narrow_as_they_are(
    engine_folder: EngineFolder, precision: Precision
) -> None:
    """What is read in a run, against what the files hold."""
    engine = engine_folder(precision=precision)
    manifest = read_manifest(engine)
    gpu, cpu = (EngineRuns.read(engine, manifest, on_cpu=on_cpu).scorer for on_cpu in (False, True))
    assert gpu is not None
    assert cpu is not None
    run = gpu.score(20)
    files = [file.size for name, file in manifest.files.items() if "decoder.onnx" in name]
    assert run.weight_bytes < sum(files)
    read = sum(step.weight_bytes for step in run.steps)
    assert 0.9 * run.weight_bytes < read < 1.1 * run.weight_bytes
    # A CPU runs nodes that widen them, and multiplies floats.
    widened = cpu.score(20)
    assert widened.nodes > run.nodes
    assert not any(step.kind in ("int8", "fp8") for step in widened.steps)


@pytest.mark.parametrize(("precision", "most"), [("int8-qdq", 1.3), ("int4", 1.7)])
def test_what_changes_promise(
    engine_folder: EngineFolder, precision: Precision, most: float
) -> None:
    """The weights foretold from an fp16 engine are about those that an export then has.

    Scales come to them: a good deal in two so small layers, 3 % of 4 bits in real ones. And
    layers whose inputs no block divides stay float16: many here, few or none in real models.
    """
    half, narrow = (engine_folder(precision=one) for one in ("fp16", precision))
    device = replace(DEVICES["l4"], memory_bytes=1 << 20)
    now = plan_engine(half, device, Workload())
    (change,) = [one for one in now.changes if one.what == f"export with --dtype {precision}"]
    promised = now.memory.needed - change.needed
    weights = [
        sum(part.bytes for part in plan.memory.parts if part.name.endswith("weights"))
        for plan in (now, plan_engine(narrow, device, Workload()))
    ]
    assert change.about
    saved = weights[0] - weights[1]
    assert 0 < saved <= promised < most * saved

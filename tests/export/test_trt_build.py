"""Exported graphs, parsed and built by a real TensorRT (RTX, which needs no GPU for that)."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from longer import longer
from numpy.typing import NDArray
from wide_engine import ENGINE as SHIPPED

from murank import InputError, MachineError
from murank.backends.trt import BuildSettings, Built, PlanMachine, PlanPlatform, build_plans
from murank.backends.trt.api import installed
from murank.backends.trt.builder import make_plan
from murank.backends.trt.profiles import graphs_of
from murank.folder.integrity import check_engine
from murank.folder.manifest import read_manifest
from murank.folder.precision import Precision
from murank.prompt import Layout

pytest.importorskip("tensorrt_rtx")

EngineFolder = Callable[..., Path]
# On the oldest GPU that has it or on the newest, at length on both. Those between get fp16.
OTHERS: list[tuple[Precision, str]] = [
    ("bf16", "12.0"), ("int8-qdq", "8.0"), ("int4", "12.0"), ("fp8", "12.0"),
]  # fmt: skip
NARROW: list[tuple[Precision, str]] = [
    ("bf16", "8.0"), ("int8-qdq", "12.0"), ("int4", "8.0"), ("fp8", "8.9"), *longer(*OTHERS),
]  # fmt: skip


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def machine(compute_capability: str = "8.9") -> PlanMachine:
    """A machine that has no GPU, and builds for one."""
    (api,) = installed("rtx")
    target = PlanPlatform(
        library=api.library, version=api.version, compute_capability=compute_capability,
        device="made up", driver="13.0",
    )  # fmt: skip
    return PlanMachine(api, target, None)


def built(
    engine: Path, tmp_path: Path, compute_capability: str = "8.9", *, max_queries: int = 1
) -> Built:
    copy = Path(shutil.copytree(engine, tmp_path / "engine", dirs_exist_ok=True))
    return build_plans(copy, BuildSettings(max_queries=max_queries), machine(compute_capability))


@pytest.mark.parametrize("compute_capability", ["8.6", *longer("8.9")])
def test_fp16_for_other_gpus(
    engine_folder: EngineFolder, tmp_path: Path, compute_capability: str
) -> None:
    made = built(engine_folder(precision="fp16"), tmp_path, compute_capability, max_queries=2)
    assert [(one.name, one.kept) for one in made.plans] == [("vision", False), ("decoder", False)]
    assert all(one.bytes > 10_000 for one in made.plans)
    assert made.plans[1].profiles == ("prefill", "scoring", "prefill-many", "scoring-many")


@pytest.mark.parametrize("compute_capability", ["8.0", "8.6"])
def test_fp8_for_gpus_without_it(
    engine_folder: EngineFolder, tmp_path: Path, compute_capability: str
) -> None:
    with pytest.raises(InputError, match=r"fp8 .*8\.9"):
        built(engine_folder(precision="fp8"), tmp_path, compute_capability)


@pytest.mark.parametrize(("precision", "compute_capability"), NARROW)
def test_each_precision_for_gpus_that_have_it(
    engine_folder: EngineFolder, tmp_path: Path, precision: Precision, compute_capability: str
) -> None:
    made = built(engine_folder(precision=precision), tmp_path, compute_capability)
    assert [one.name for one in made.plans] == ["vision", "decoder"]
    assert all(one.bytes > 10_000 for one in made.plans)
    assert made.plans[1].profiles == ("prefill", "scoring")


def test_tensorrt_itself_has_no_fp8_for_gpus_without_it(engine_folder: EngineFolder) -> None:
    engine, settings = engine_folder(precision="fp8"), BuildSettings(max_queries=1)
    (vision,) = [one for one in graphs_of(read_manifest(engine), settings) if one.name == "vision"]
    with pytest.raises(MachineError, match="plan"):
        make_plan(
            machine("8.6"), engine / vision.file, vision.profiles, settings, timing_cache=b"",
            progress=lambda *_: None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "layout", "precision"),
    [
        ("qwen2_5_vl", "paper", "fp32"),
        ("qwen3_vl", "prefix_first", "fp32"),
        *longer(
            ("qwen2_vl", "prefix_first", "fp32"),
            ("qwen2_5_vl", "prefix_first", "int8-qdq"),
            ("qwen3_vl", "prefix_first", "bf16"),
            ("qwen3_vl", "prefix_first", "int8-qdq"),
        ),
    ],
)
def test_each_family(
    engine_folder: EngineFolder, tmp_path: Path, family: str, layout: Layout, precision: Precision
) -> None:
    assert len(built(engine_folder(family, layout, precision), tmp_path).plans) == 2


@pytest.mark.parametrize("max_queries", [1, *longer(2)])
def test_an_encoder_too_and_again_and_weights_are_held_once(
    tmp_path: Path, max_queries: int
) -> None:
    """Every matrix stands once in a plan of all profiles, as it is or turned round."""
    import onnx
    from onnx import numpy_helper

    first = built(SHIPPED, tmp_path, max_queries=max_queries)
    assert [one.name for one in first.plans] == ["encoder", "vision", "decoder"]
    again = build_plans(tmp_path / "engine", BuildSettings(max_queries=max_queries), machine())
    assert all(one.kept for one in again.plans)
    check_engine(tmp_path / "engine")

    (plan,) = (tmp_path / "cache" / "murank" / "plans").glob("*/*/decoder.plan")
    content = plan.read_bytes()
    graph = onnx.load(SHIPPED / "onnx" / "decoder.onnx").graph
    arrays = map(numpy_helper.to_array, graph.initializer)
    matrices = [array for array in arrays if array.ndim == 2 and array.size > 1000]
    assert sum(map(np.size, matrices)) > 1_000_000
    for matrix in matrices:
        ways = [middle(matrix), middle(np.ascontiguousarray(matrix.T))]
        assert sum(map(content.count, ways)) == 1


def middle(matrix: NDArray[Any]) -> bytes:
    """Enough values to be found nowhere else."""
    return matrix.reshape(-1)[matrix.size // 2 :][:16].tobytes()


def test_an_interrupt_ends_the_real_builder(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(SHIPPED, tmp_path / "engine"))
    seen = []

    def progress(stage: str, done: int, total: int) -> None:
        del done, total
        if stage.startswith("vision: "):
            seen.append(stage)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plans(copy, BuildSettings(), machine(), progress=progress)
    assert len(seen) == 1
    names = {path.name for path in (tmp_path / "cache" / "murank" / "plans").glob("*/*/*")}
    assert "encoder.plan" in names
    assert "vision.plan" not in names


def test_a_graph_that_tensorrt_does_not_know(engine_folder: EngineFolder, tmp_path: Path) -> None:
    """int8 engines are refused by their precision; this is what their graphs would meet."""
    engine = Path(shutil.copytree(engine_folder(precision="int8"), tmp_path / "engine"))
    with pytest.raises(InputError, match="int8"):
        build_plans(engine, BuildSettings(), machine())
    vision = next(one for one in graphs_of(read_manifest(engine), BuildSettings()))
    with pytest.raises(InputError, match=r"vision\.onnx"):
        make_plan(
            machine(), engine / vision.file, vision.profiles, BuildSettings(), timing_cache=b"",
            progress=lambda *_: None,
        )  # fmt: skip

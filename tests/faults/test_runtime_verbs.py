"""A full disk, and a kill, at each step of each verb of the runtime that writes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import report
from engine_folder import make_engine
from faults.everywhere import Command, check_every_step, coded
from faults.shim import Shim, in_child
from image_job import ImageJob
from trt_fakes import FakeGpu, FakeTensorRT

import murank_kernels._compile_all  # noqa: F401 - all of them, before the first fork
from murank import save_features
from murank.bench._store import write_report
from murank.calibration import calibrate, store_calibration
from murank.cli import main
from murank.engine.manifest import engine_sha256, read_manifest
from murank.synthetic import make_features
from murank.trt import BuildSettings, build_plans, this_machine

TINY = (
    "--domain", "mall", "--people", 1, "--distractors", 1, "--cameras", 2, "--seen-by", 2,
    "--quiet",
)  # fmt: skip
TIMES = ("seconds", "stages", "cpu_seconds", "peak_memory_mib", "total_seconds")


def verb(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.mark.parametrize("again", [False, True])
def test_world(root: Path, tmp_path: Path, again: bool) -> None:
    options = ["world", "-o", root / "deep" / "world", *TINY, "--sheet", root / "sheet.png"]
    if again:
        assert verb(*options, "--seed", 7) == 0
        options.append("--overwrite")
    command = Command(
        root, lambda: verb(*options), lambda: verb(*options, "--overwrite"),
        seal="deep/world/world.json", most=40,
    )  # fmt: skip
    assert check_every_step(command, tmp_path / "spare") > 25


@pytest.mark.parametrize("again", [False, True])
def test_synthesize(root: Path, tmp_path: Path, again: bool) -> None:
    options = ["synthesize", "-o", root / "a" / "f.npz", "--ids", 3, "--distractors", 2]
    if again:
        assert verb(*options, "--seed", 7) == 0
        options.append("--overwrite")
    command = Command(root, lambda: verb(*options), lambda: verb(*options, "--overwrite"))
    assert check_every_step(command, tmp_path / "spare") > 10


@pytest.fixture
def features(tmp_path: Path) -> Path:
    made = make_features(num_ids=4, num_cameras=2, images_per_camera=2, num_distractors=4, dim=8)
    save_features(tmp_path / "f.npz", made)
    return tmp_path / "f.npz"


@pytest.mark.parametrize("again", [False, True])
def test_rerank_features(root: Path, tmp_path: Path, features: Path, again: bool) -> None:
    options = ["rerank", "--features", features, "--method", "none", "-o", root / "out", "--quiet"]
    # The kernels are ready before the first fork.
    assert verb(*options, "--top-k", 3, "--format", "jsonl") == 0
    if not again:
        shutil.rmtree(root)
    command = Command(
        root, lambda: verb(*options, "--overwrite"), seal="out/summary.json", changing=TIMES
    )
    assert check_every_step(command, tmp_path / "spare") > 20


@pytest.mark.parametrize("again", [False, True])
def test_rerank_images(job: ImageJob, tmp_path: Path, again: bool) -> None:
    options = ["--top-k-candidates", 3, "-o", job.out, "--quiet"]
    assert job.run(*options, "--order", "both") == 0  # the kernels are ready before the first fork
    if again:
        options.append("--overwrite")
    else:
        shutil.rmtree(job.out)
    command = Command(
        job.out,
        lambda: job.run(*options),
        lambda: job.run(*options, "--overwrite"),
        seal="summary.json",
        kept=r"^\.murank-batch|^features.npz$|^mu.npz$",
        changing=(*TIMES, "reused", "resumed", "inputs"),
        most=40,
    )
    assert check_every_step(command, tmp_path / "spare") > 25


def test_calibrate(root: Path, tmp_path: Path) -> None:
    make_engine(root)
    random = np.random.default_rng(0)
    odds = np.concatenate([random.normal(-2, 3, 300), random.normal(3, 3, 320)])
    measured = calibrate(odds, np.arange(620) < 300, prior=0.3)
    manifest, sha256 = read_manifest(root), engine_sha256(root)

    def store() -> None:
        if engine_sha256(root) == sha256:
            store_calibration(root, manifest, sha256, measured, pairs_sha256="5" * 64)

    assert check_every_step(Command(root, coded(store)), tmp_path / "spare") > 15


def test_bench(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    write = coded(lambda: write_report(root / "r" / "report.json", report(None)))
    assert check_every_step(Command(root, write), tmp_path / "spare") > 10


def test_build(tmp_path: Path, trt: FakeTensorRT, gpu: FakeGpu) -> None:
    del trt, gpu
    shipped = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
    engine = Path(shutil.copytree(shipped, tmp_path / "engine"))
    settings, machine = BuildSettings(parts=("encoder",)), this_machine()
    # The seal of the plans is made once, elsewhere.
    build_plans(engine, settings, machine)
    shutil.rmtree(engine / "plans")
    command = Command(
        engine, coded(lambda: build_plans(engine, settings, machine)), changing=("seconds", "seal"),
        kept=r"^plans/", most=16,
    )  # fmt: skip
    assert check_every_step(command, tmp_path / "spare") > 8


def test_verbs_that_write_nothing(
    root: Path, tmp_path: Path, features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_engine(root / "engine")
    shutil.copy(features, root / "f.npz")
    runs: list[tuple[Any, ...]] = [
        ("evaluate", root / "f.npz"),
        ("compare", "--features", root / "f.npz", "--quiet"),
        ("inspect", root / "engine"),
    ]
    for run in runs:
        ended = in_child(lambda run=run: verb(*run), Shim(tmp_path))  # type: ignore[misc]
        assert (ended.code, ended.steps) == (0, []), ended
    capsys.readouterr()

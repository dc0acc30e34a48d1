"""A full disk, and a kill, at each step of each verb of the runtime that takes an engine."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from bench_fakes import report
from engine_folder import make_engine
from faults.covered import written
from faults.everywhere import ALL, Command, check_every_step
from faults.shim import CAN_FAIL, KILLED, Shim, in_child
from image_job import make_people
from search_parts import make_engine as engine_in_memory
from trt_fakes import FakeGpu, FakeTensorRT
from wide_engine import ENGINE

from murank.backends.trt import this_machine
from murank.backends.trt.plan_store import PlanStore
from murank.cli import bench as _bench
from murank.cli import calibrate as _calibrate
from murank.cli import main
from murank.engine import token_files
from murank.engine.disk_cache import DiskCache
from murank.engine.engine import Engine
from murank.folder.contents import EngineFiles
from murank.folder.manifest import engine_sha256, read_manifest
from murank.sheet import canvas as _figure


def verb(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def quick_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drawing takes longer than a hundred writes."""
    rendered = SimpleNamespace(print_png=lambda raw: raw.write(b"a picture"))
    monkeypatch.setattr(_figure, "canvas", lambda *_: (mock.MagicMock(), rendered))
    monkeypatch.setattr(_figure, "zip", lambda *_, **__: [], raising=False)  # no axes


@written("calibrate engine", "calibrate --plot")
@pytest.mark.parametrize("again", [False, True])
def test_calibrate(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_plots: None, again: bool
) -> None:
    del quick_plots
    engine = root / "engine"
    make_engine(engine)
    random = np.random.default_rng(0)
    odds = np.concatenate([random.normal(-2, 3, 300), random.normal(3, 3, 320)])
    same = np.arange(620) < 300
    pairs = tmp_path / "pairs.json"
    rows = (f'{{"query": "{n}", "candidate": "c", "match": "{"Yes" if yes else "No"}"}}'
            for n, yes in enumerate(same))  # fmt: skip
    pairs.write_text(f"[{', '.join(rows)}]")

    def loaded(folder: Path, **_options: object) -> object:
        sha256 = engine_sha256(folder)
        return SimpleNamespace(manifest=read_manifest(folder), sha256=sha256, encoder=None)

    scored = SimpleNamespace(log_odds=odds, same=same, skipped=(), pairs=())
    monkeypatch.setattr(Engine, "from_pretrained", loaded)
    monkeypatch.setattr(_calibrate, "score_pairs", lambda *_given, **_options: scored)
    options = ["calibrate", engine, "--pairs", pairs, "--plot", root / "det.png", "--quiet"]
    if again:
        assert verb(*options, "--prior", 0.2) == 0
        options.append("--overwrite")
    command = Command(
        root, lambda: verb(*options), lambda: verb(*options, "--overwrite"),
        read=lambda: read_manifest(engine),
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")


@written("bench --json", "bench --plot")
@pytest.mark.parametrize("again", [False, True])
def test_bench(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_plots: None, again: bool
) -> None:
    del quick_plots
    monkeypatch.setattr(_bench, "run_bench", lambda *_given, **_options: report(None))
    make_engine(root / "engine")
    options = ["bench", root / "engine", "--quiet", "--plot", root / "p" / "a.png"]
    options += ["--json", root / "r" / "report.json"]
    if again:
        (root / "r").mkdir()
        (root / "r" / "report.json").write_text("of another time")
        options.append("--overwrite")
    command = Command(root, lambda: verb(*options), lambda: verb(*options, "--overwrite"))
    check_every_step(command, tmp_path / "spare")


@written("build engine", "build --timing-cache", "build --plans")
@pytest.mark.parametrize("again", [False, True])
def test_build(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trt: FakeTensorRT, gpu: FakeGpu,
    again: bool,
) -> None:  # fmt: skip
    del trt, gpu
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    engine = Path(shutil.copytree(ENGINE, root / "engine"))
    options = ["build", engine, "--parts", "encoder", "--quiet"]
    if again:
        assert verb(*options, "--expect-dtype", "fp32", "--tf32") == 0
    else:
        options += ["--timing-cache", root / "timings", "--plans", root / "plans"]

    def read() -> object:
        place = None if again else root / "plans"
        store = PlanStore(EngineFiles(engine, read_manifest(engine)), this_machine().target, place)
        plans = store.read().plans
        return [store.is_whole(name, entry) or 1 / 0 for name, entry in plans.items()]

    command = Command(
        root, lambda: verb(*options), read=read,
        changing=("seconds", "timing.cache"), varying=r"/timings$|/timing\.cache$",
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")


@pytest.fixture
def place(root: Path) -> Path:
    """Images to search, beside what is written."""
    make_people(root.parent / "query", root.parent / "gallery")
    return root.parent


@written("search --sheet")
def test_search(place: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_engine(place / "engine")
    monkeypatch.setattr(Engine, "from_pretrained", lambda *_given, **_options: engine_in_memory())
    options = ["search", place / "engine", "--query", place / "query" / "0001_c1s1_000.png"]
    options += ["--gallery", place / "gallery", "--sheet", root / "sheet.png", "--quiet"]
    command = Command(
        root, lambda: verb(*options), lambda: verb(*options, "--overwrite"), varying="sheet.png$"
    )  # fmt: skip
    check_every_step(command, place / "spare")


@written(
    "search --cache-dir", "score --cache-dir", "align --cache-dir", "gallery add --cache-dir",
    "gallery search --cache-dir", "gallery reembed --cache-dir", "gallery erase --cache-dir",
    "gallery purge --cache-dir", "gallery relate --cache-dir", "serve --cache-dir",
)  # fmt: skip
def test_search_with_a_cache(place: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be written is no reason to stop."""
    monkeypatch.setattr(token_files, "ABANDONED_S", 0.0)
    options = ["search", ENGINE, "--query", place / "query" / "0001_c1s1_000.png", "--quiet"]
    options += ["--gallery", place / "gallery", "--threads", 1, "--providers", "cpu"]
    options += ["--candidates", 2, "--cache-dir", root]
    root.mkdir()
    command = Command(root, lambda: verb(*options), is_durable=False)
    check_every_step(command, place / "spare")


def values(number: int) -> Any:
    return np.full((4, 8), number, np.float32)


def keys() -> Iterator[str]:
    return (f"{number:064x}" for number in range(4))


def keep(root: Path) -> None:
    cache = DiskCache(root, "5" * 64)
    for number, key in enumerate(keys()):
        cache.put(key, values(number))


def found(root: Path) -> list[bool]:
    """Which of them are there; whatever is there is right."""
    cache = DiskCache(root, "5" * 64)
    read = [cache.get(key, (4, 8), np.dtype(np.float32)) for key in keys()]
    for number, one in enumerate(read):
        assert one is None or np.array_equal(one, values(number))
    return [one is not None for one in read]


@written("cache folder")
def test_cache_clear(root: Path, tmp_path: Path) -> None:
    keep(root)
    (root / "mine").write_text("mine")
    command = Command(root, lambda: verb("cache", "clear", root), failing=("remove",), most=100)
    check_every_step(command, tmp_path / "spare")
    assert [path.name for path in root.iterdir()] == ["mine"]


@written("doctor --compile-kernels")
def test_compiled_kernels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba writes its cache itself: what a killed one leaves must not be taken for a kernel."""
    from numba import config

    from murank_kernels import _compile_all
    from murank_kernels.loops.compiled import compiled

    def make_and_call() -> None:
        @compiled
        def one_more(x: int) -> int:
            return x + 1

        assert one_more(1) == 2

    monkeypatch.setattr(config, "CACHE_DIR", str(root))
    monkeypatch.setattr(_compile_all, "compile_all", make_and_call)

    def run() -> int:
        return verb("doctor", "--compile-kernels", "--quiet")

    root.mkdir()
    whole = in_child(run, Shim(root))
    assert (whole.code, bool(whole.steps)) == (0, True), whole.err
    stops = [(n, kill) for n in range(len(whole.steps)) for kill in (False, True)]
    for number, kill in stops[:: 1 if ALL else max(1, len(stops) // 6)]:
        if not kill and whole.steps[number].kind not in CAN_FAIL:
            continue
        shutil.rmtree(root)
        root.mkdir()
        ended = in_child(run, Shim(root, number, kill=kill))
        where = f"{number}: {whole.steps[number]}\n{ended.err}"
        assert ended.code == KILLED if kill else ended.code in (0, 3), where
        assert "Traceback" not in ended.err, where
        if ended.code == 3:
            assert ended.err.startswith("murank: error: "), where
        again = in_child(run, Shim(root))
        assert again.code == 0, f"{where}{again.err}"

"""A fresh process, timed from its birth."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import FakeClock

from murank import InputError, MachineError
from murank.bench import cold_process as cold
from murank.bench.bench_settings import BenchSettings
from murank.bench.cold_start import cold_job, cold_runs
from murank.bench.workload import made_workload
from murank.engine.engine import Engine
from murank.folder.manifest import read_manifest, read_manifest_once
from murank.images import DecodeLimits

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
SETTINGS = BenchSettings(candidates=4, gallery_size=30)


def write_job(folder: Path, **changes: Any) -> Path:
    workload = made_workload(folder, SETTINGS)
    file = cold_job(
        folder, ENGINE, *read_manifest_once(ENGINE), workload, SETTINGS,
        parts=["encoder", "scorer"], providers="cpu", threads=1, bits=12,
        decode_limits=DecodeLimits(max_side=500),
    )  # fmt: skip
    job = json.loads(file.read_text())
    file.write_text(json.dumps({**job, **changes}))
    return file


def test_a_real_process(tmp_path: Path) -> None:
    (found,) = cold_runs(write_job(tmp_path), 1)
    assert tuple(found) == cold.STEPS
    assert all(value > 0 for value in found.values())
    # An interpreter with NumPy and Numba takes longer than this; a wrong clock would not.
    assert 20 < found["import_ms"] < 120_000


def test_a_process_that_fails(tmp_path: Path) -> None:
    """What the engine says of itself is said as it would be here; the rest is wrapped."""
    job = write_job(tmp_path, engine=str(tmp_path / "none"))
    with pytest.raises(
        InputError, match=r"^/.*none: no such folder; name the folder of an engine$"
    ):
        list(cold_runs(job, 1))
    job.write_text("{}")
    with pytest.raises(
        MachineError, match=r"a fresh process could not answer; pass --skip-cold.*KeyError"
    ):
        list(cold_runs(job, 1))


def test_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called when, on a clock that moves with the work."""
    clock = FakeClock()
    job = json.loads(write_job(tmp_path).read_text())

    sha256 = read_manifest_once(ENGINE)[1]

    class FakeEngine:
        encoder: object | None = object()

        def mu(self, _query: str, candidates: list[str]) -> None:
            clock.work(0.1 * len(candidates))

    def loaded(folder: str, **options: Any) -> FakeEngine:
        assert folder == str(ENGINE)
        assert options == {
            "providers": "cpu", "products": "float32", "plans": None, "threads": 1,
            "parts": ["encoder", "scorer"],
            "sha256": sha256,
            "bits": 12, "decode_limits": DecodeLimits(max_side=500),
        }  # fmt: skip
        clock.work(2.0)
        return FakeEngine()

    class FakeSearcher:
        def __init__(self, _engine: object, features: Any, images: list[str], **kept: Any) -> None:
            assert features.shape == (30, 256)
            assert len(images) == 30
            numbers = [int(Path(image).stem.split("-")[1]) for image in images]
            assert kept == {
                "candidates": 4, "method": "k-reciprocal", "align_cameras": "auto",
                "camids": [number % 6 for number in numbers],
            }  # fmt: skip
            clock.work(0.5)
            self.spent = self.seconds()

        def seconds(self) -> Iterator[float]:
            yield from (3.0, 0.25)

        def search(self, query: str) -> None:
            assert Path(query).is_file()
            clock.work(next(self.spent))

    monkeypatch.setattr(Engine, "from_pretrained", loaded)
    monkeypatch.setattr(cold, "Searcher", FakeSearcher)
    found = cold.measure(job, clock.now() - 1.0, clock=clock.now)
    assert list(found.values()) == pytest.approx([1000, 2000, 500, 3000, 250])

    monkeypatch.setattr(FakeEngine, "encoder", None)  # the MLLM alone is asked
    found = cold.measure(job, clock.now() - 1.0, clock=clock.now)
    assert list(found.values()) == pytest.approx([1000, 2000, 0, 400, 400])


def test_features_are_saved_only_where_there_is_an_encoder(tmp_path: Path) -> None:
    workload = made_workload(tmp_path, SETTINGS)
    manifest = read_manifest(ENGINE)
    alone = type(manifest)(**{**vars(manifest), "encoder": None})
    job = cold_job(
        tmp_path, ENGINE, alone, "0" * 64, workload, SETTINGS,
        parts=["scorer"], providers="auto", threads=None,
    )  # fmt: skip
    assert json.loads(job.read_text())["features"] is None
    assert not (tmp_path / "features.npy").exists()
    queries = json.loads(job.read_text())["queries"]
    pixels = [np.asarray(Path(path).read_bytes()) for path in queries]
    assert len(pixels) == 2
    assert pixels[0] != pixels[1]

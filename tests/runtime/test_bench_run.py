"""A benchmark from beginning to end, with a clock and an engine that are made up."""

import getpass
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from bench_fakes import FakeClock, FakeSubject
from engine_folder import make_engine

from murank import InputError, MachineError, UsageError
from murank.bench import run as _run
from murank.bench.bench_settings import BenchSettings
from murank.bench.gallery_room import check_room, gallery_bytes
from murank.bench.report_files import report_text
from murank.bench.run import EngineOptions, offline_count, run_bench, sweep_counts
from murank.bench.schema import BenchReport

SMALL = BenchSettings(candidates=4, gallery_size=8, duration=4.0, warmup=1.0)


class FakeEngine:
    scorer: object | None = object()
    providers: Mapping[str, list[str]] = {"encoder": ["CPUExecutionProvider"]}


@dataclass
class Bench:
    """Runs with what it is given, and keeps what was asked of the subjects."""

    options: EngineOptions
    clock: FakeClock
    subjects: list[FakeSubject]
    stop_at: int | None = None  # the call, counted over all subjects, that is interrupted
    seconds: float = 0.25

    def run(self, settings: BenchSettings = SMALL, **changes: Any) -> BenchReport:
        return run_bench(self.options, settings, clock=self.clock, **changes)

    def subject(self, _engine: object, _workload: object, settings: BenchSettings) -> FakeSubject:
        made = FakeSubject(self.clock, lambda _: self.seconds, stop_at=self.stop_at)
        made.scored = settings.candidates
        self.subjects.append(made)
        return made


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    manifest = make_engine(tmp_path / "engine")
    made = Bench(EngineOptions(tmp_path / "engine", manifest, "a" * 64), FakeClock(), [])
    monkeypatch.setattr(_run, "load_engine", lambda *_: FakeEngine())
    monkeypatch.setattr(_run, "subject_of", made.subject)
    return made


def test_two_sections(bench: Bench) -> None:
    found = bench.run()
    assert found.status == "complete"
    assert found.cached is not None
    assert found.uncached is not None
    # 3 s and 1 s of 0.25 s each; 4 in the warm-up.
    assert (found.cached.queries, found.uncached.queries) == (12, 4)
    (subject,) = bench.subjects
    kinds = [entry.split()[0] for entry in subject.log]
    assert kinds == ["warm", *["ask"] * 16, *["forget", "ask"] * 4]
    assert found.cached.latency.p50_ms == pytest.approx(250)
    assert found.cached.throughput_qps == pytest.approx(4)
    assert found.environment.providers == {"encoder": ["CPUExecutionProvider"]}
    assert found.cold is None
    assert found.sweep == {}
    assert found.memory is not None
    assert found.memory.peak_bytes is not None
    assert found.memory.device_bytes is None


def test_a_warm_up_is_three_queries_at_least(bench: Bench) -> None:
    found = bench.run(replace(SMALL, warmup=0.0, uncached_share=0.0))
    assert found.uncached is None
    assert found.cached is not None
    assert found.cached.queries == 16
    assert len(bench.subjects[0].log) == 1 + 3 + 16


@pytest.mark.parametrize("case", ["no MLLM", "not asked"])
def test_without_mllm_nothing_is_cached(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    method = SMALL.method
    if case == "no MLLM":
        monkeypatch.setattr(FakeEngine, "scorer", None)
    else:
        method = "none"
    found = bench.run(replace(SMALL, method=method, sweep=True))
    assert found.uncached is None
    assert found.sweep == {}
    assert found.cached is not None
    assert found.cached.queries == 16


def test_server(bench: Bench) -> None:
    found = bench.run(replace(SMALL, scenario="Server", qps=2.0, latency_bound_ms=100.0))
    assert found.cached is not None
    assert found.cached.server is not None
    assert found.cached.server.scheduled == found.cached.queries
    assert found.cached.server.verdict == "invalid"  # 250 ms are not within 100
    assert found.uncached is not None
    assert found.uncached.server is None
    assert found.settings.qps == 2


def test_a_server_that_cannot_keep_up_says_so(bench: Bench) -> None:
    bench.seconds = 1.0
    asked = replace(SMALL, scenario="Server", qps=20.0, latency_bound_ms=1e9)
    found = bench.run(asked)
    assert found.cached is not None
    assert found.cached.server is not None
    assert found.cached.queries < 20
    assert (
        found.cached.server.unanswered == found.cached.server.scheduled - found.cached.queries > 20
    )
    assert found.cached.server.verdict == "invalid"


def test_an_interrupted_server_is_not_said_to_have_fallen_behind(bench: Bench) -> None:
    asked = replace(SMALL, scenario="Server", qps=2.0, duration=400.0)
    bench.stop_at = 24  # 4 are the warm-up
    found = bench.run(asked)
    assert found.cached is not None
    assert found.cached.server is not None
    assert found.cached.queries == 20
    # Two a second, a quarter of a second each: hardly anybody waits. 600 were to come.
    assert 20 <= found.cached.server.scheduled <= 25
    assert found.cached.server.verdict == "interrupted"


def test_a_server_that_was_done_before_the_interruption_keeps_its_verdict(bench: Bench) -> None:
    bench.seconds = 0.001
    asked = replace(SMALL, scenario="Server", qps=400.0, warmup=0.0)
    whole = bench.run(asked)
    assert whole.cached is not None
    bench.stop_at = 3 + whole.cached.queries + 1  # the second query of `uncached`
    found = bench.run(asked)
    assert found.status == "interrupted"
    assert found.cached is not None
    assert found.cached.server is not None
    assert found.cached.server == whole.cached.server
    assert found.cached.server.verdict == "valid"


def test_a_gallery_that_does_not_fit_is_refused_before_any_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_run, "made_workload", None)
    monkeypatch.setattr(_run, "environment", None)
    message = (
        r"a gallery of 100000000000 images takes about \d+\.\d GiB, and \d+\.\d GiB are free: pass "
        r"a smaller --gallery-size"
    )
    with pytest.raises(InputError, match=message):
        bench.run(replace(SMALL, gallery_size=10**11))


def test_room(bench: Bench) -> None:
    manifest = bench.options.manifest
    assert manifest.encoder is not None
    needed = gallery_bytes(manifest, SMALL.gallery_size)
    assert needed > SMALL.gallery_size * manifest.encoder.dim * 4
    check_room(manifest, SMALL, needed)
    check_room(manifest, SMALL, None)
    with pytest.raises(InputError, match="a gallery of 8 images"):
        check_room(manifest, SMALL, needed - 1)
    check_room(replace(manifest, encoder=None), SMALL, 0)


def test_offline_makes_no_endless_number_of_images(bench: Bench) -> None:
    bench.seconds = 0.0001
    asked = replace(SMALL, scenario="Offline", warmup=0.0)
    message = (
        "at 320000 queries a second, the pace of the warm-up, Offline would ask 960000 queries, "
        "and at most 20000 images are made beforehand: pass a --duration below 0.021 of"
    )
    with pytest.raises(UsageError, match=message):
        bench.run(asked)
    assert offline_count(2000.0, 10.0) == 20_000
    assert offline_count(0.01, 1.0) == 1


def test_images_made_beforehand_are_told_of(bench: Bench) -> None:
    steps: list[tuple[str, int, int]] = []
    asked = replace(SMALL, scenario="Server", qps=40.0, duration=4.0)
    bench.run(asked, progress=lambda *step: steps.append(step))
    made = [step for step in steps if step[0] == "queries"]
    assert len(made) > 64
    assert [done for _, done, _ in made] == list(range(1, made[-1][2] + 1))


def test_multi_stream(bench: Bench) -> None:
    found = bench.run(replace(SMALL, scenario="MultiStream", streams=3))
    assert found.cached is not None
    assert (found.cached.latency.count, found.cached.queries) == (12, 36)
    assert found.settings.streams == 3


def test_offline_asks_what_fits_into_the_duration(bench: Bench) -> None:
    bench.seconds = 0.5
    found = bench.run(replace(SMALL, scenario="Offline"))
    assert found.cached is not None
    # The warm-up's pace is 32 queries in half a second.
    assert found.cached.queries == 3 * 64
    assert found.cached.throughput_qps == pytest.approx(64)


def test_sweep(bench: Bench) -> None:
    found = bench.run(replace(SMALL, candidates=4, sweep=True))
    assert list(found.sweep) == ["1", "2", "4", "8"]
    assert [one.scored_per_query for one in found.sweep.values()] == [1, 2, 4, 8]
    assert all(one.queries == 3 for one in found.sweep.values())
    assert all(subject.log[0] == "warm" for subject in bench.subjects)


def test_sweep_counts() -> None:
    assert sweep_counts(BenchSettings(), 80) == [1, 5, 10, 20, 40]
    assert sweep_counts(BenchSettings(candidates=1), 80) == [1, 2]
    assert sweep_counts(BenchSettings(candidates=60, gallery_size=70), 70) == [1, 15, 30, 60, 70]


@pytest.mark.parametrize(
    ("stop_at", "cached", "uncached"), [(6, 2, None), (4, None, None), (18, 12, 2)]
)
def test_interrupted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stop_at: int, cached: int, uncached: int
) -> None:
    monkeypatch.setattr(_run, "cold_runs", lambda _job, _runs: iter([COLD]))
    bench.stop_at = stop_at
    found = bench.run(cold=1)
    assert found.status == "interrupted"
    assert (found.cached and found.cached.queries) == cached
    assert (found.uncached and found.uncached.queries) == uncached
    assert found.cold is not None
    assert found.memory is not None
    assert report_text(found)


COLD = dict.fromkeys(("import_ms", "load_ms", "gallery_ms", "first_ms", "second_ms"), 10.0)


def test_interrupted_before_anything_was_measured(bench: Bench) -> None:
    bench.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        bench.run()


def test_what_a_killed_benchmark_left_is_swept(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of people may be in it; what others keep there stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    left = tmp_path / "scratch" / ".murank-0123456789abcdef-bench"
    left.mkdir(parents=True)
    (left / "query.png").write_bytes(b"somebody")
    (tmp_path / "scratch" / "mine").mkdir()
    bench.run()
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["mine"]


def test_no_temporary_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(MachineError, match="TMPDIR"):
        bench.run()


def test_cold_starts_are_medians(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [{**COLD, "load_ms": load} for load in (5.0, 500.0, 20.0)]
    monkeypatch.setattr(_run, "cold_runs", lambda _job, count: iter(runs[:count]))
    steps: list[tuple[str, int, int]] = []
    found = bench.run(cold=3, progress=lambda *step: steps.append(step)).cold
    assert found is not None
    assert (found.runs, found.load_ms, found.import_ms) == (3, 20, 10)
    assert found.answered_ms == 50  # the median of sums: 10 + load + 10 + 10
    assert ("cold starts", 3, 3) in steps
    assert any(what == "cached, seconds" for what, _, _ in steps)


def test_nothing_personal_is_in_a_report(bench: Bench) -> None:
    text = report_text(bench.run())
    for secret in (platform.node(), str(Path.cwd()), str(bench.options.folder), os.sep + "tmp"):
        assert secret not in text
    user = getpass.getuser()
    assert f'"{user}"' not in text

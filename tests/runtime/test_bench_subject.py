"""What is measured, for real: the shipped engine, whole and in parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from murank.bench.bench_settings import BenchSettings
from murank.bench.scenarios import Queries, Subject
from murank.bench.subject import subject_of
from murank.bench.workload import NewQueries, Workload, made_workload
from murank.engine.engine import Engine

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
K = 6
SETTINGS = BenchSettings(candidates=K, gallery_size=200)


class Bench:
    """An engine, what is asked of it, and how many images its vision tower has seen."""

    def __init__(self, folder: Path, *parts: Any, **changes: Any) -> None:
        self.engine = Engine.from_pretrained(ENGINE, providers="cpu", threads=1, parts=parts)
        settings = BenchSettings(**{**vars(SETTINGS), **changes})
        self.workload: Workload = made_workload(folder, settings)
        self.queries: Queries = NewQueries(folder, self.workload.asked, 0)
        self.subject: Subject = subject_of(self.engine, self.workload, settings)
        self.seen = 0
        if self.engine.scorer is not None:
            session = self.engine.scorer.vision.session
            run = session.run

            def counted(inputs: Any, outputs: Any) -> Any:
                self.seen += len(inputs["images"])
                return run(inputs, outputs)

            session.run = counted  # type: ignore[method-assign]

    def seen_by(self, deadline_ms: float | None = None) -> int:
        """Images that the vision tower sees for one query."""
        before = self.seen
        (query,) = self.queries.take(1)
        self.subject.ask(query, deadline_ms)
        return self.seen - before


@pytest.mark.parametrize("parts", [("encoder", "scorer"), ("scorer",)])
def test_cached_and_uncached(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """The query is always new; its candidates, all different, are new only if forgotten."""
    bench = Bench(tmp_path, *parts)
    bench.subject.warm()
    assert bench.seen == len(bench.workload.pool) == 64
    assert [bench.seen_by() for _ in range(40)] == [1] * 40
    uncached = []
    for _ in range(10):
        bench.subject.forget()
        uncached.append(bench.seen_by())
    assert uncached == [1 + K] * 10


def test_a_whole_search(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "encoder", "scorer")
    (query,) = bench.queries.take(1)
    found = bench.subject.ask(query, None)
    assert set(found.stages) == {
        "decode", "embed", "retrieve", "vision", "prefill", "score", "fuse", "rerank",
    }  # fmt: skip
    assert (found.scored, found.candidates) == (K, K)
    assert all(seconds > 0 for seconds in found.stages.values())


def test_an_encoder_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "encoder")
    bench.subject.warm()
    (query,) = bench.queries.take(1)
    found = bench.subject.ask(query, None)
    assert set(found.stages) == {"decode", "embed", "retrieve", "rerank"}
    assert (found.scored, found.candidates) == (0, 0)


def test_a_method_without_mu_does_not_ask_the_mllm(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "encoder", "scorer", method="none")
    assert bench.seen_by() == 0


def test_the_mllm_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "scorer", method=None)
    (query,) = bench.queries.take(1)
    found = bench.subject.ask(query, None)
    assert set(found.stages) == {"decode", "vision", "prefill", "score"}
    assert (found.scored, found.candidates) == (K, K)


@pytest.mark.parametrize("parts", [("encoder", "scorer"), ("scorer",)])
@pytest.mark.parametrize("candidates", [K, 40])  # several queries fit into a run, or none but one
def test_groups(tmp_path: Path, parts: tuple[str, ...], candidates: int) -> None:
    bench = Bench(tmp_path, *parts, candidates=candidates)
    found = bench.subject.ask_many(bench.queries.take(3))
    assert (found.scored, found.candidates) == (3 * candidates, 3 * candidates)
    assert {"decode", "vision", "prefill", "score"} <= set(found.stages)


@pytest.mark.parametrize("parts", [("encoder", "scorer"), ("scorer",)])
def test_a_deadline_that_has_passed(tmp_path: Path, parts: tuple[str, ...]) -> None:
    bench = Bench(tmp_path, *parts)
    (query,) = bench.queries.take(1)
    found = bench.subject.ask(query, 1e-6)
    assert (found.scored, found.candidates) == (0, K)


def test_a_group_takes_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of the queries add up to the group's seconds again."""
    bench = Bench(tmp_path, "encoder")
    encoder = bench.engine.encoder
    assert encoder is not None
    moments = iter(np.arange(0.0, 1000.0))
    monkeypatch.setattr("murank.engine.stopwatch.time.perf_counter", lambda: float(next(moments)))
    found = bench.subject.ask_many(bench.queries.take(4))
    assert found.stages["decode"] == pytest.approx(1.0)
    assert found.stages["embed"] == pytest.approx(1.0)

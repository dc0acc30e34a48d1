"""A clock that stands still unless told, and something to measure that takes what it is told to."""

from collections.abc import Callable, Sequence
from pathlib import Path

from murank.bench.clock import Clock
from murank.bench.samples import Sample, TimedAnswer
from murank.bench.schema import BenchReport, Environment, MemoryFigures, Section, SettingsRecord

CANDIDATES = 20


class FakeClock(Clock):
    """Time passes by sleeping and by working."""

    def __init__(self, moment: float = 1000.0) -> None:
        self.moment = moment
        self.cpu_seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.moment

    def cpu(self) -> float:
        return self.cpu_seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.moment += seconds

    def work(self, seconds: float) -> None:
        """Two threads work."""
        self.moment += seconds
        self.cpu_seconds += 2 * seconds


class FakeSubject:
    """Takes `seconds(n)` for the n-th call; notes what happens."""

    def __init__(
        self, clock: FakeClock, seconds: Callable[[int], float], *, stop_at: int | None = None
    ) -> None:
        self.clock, self.seconds, self.stop_at = clock, seconds, stop_at
        self.calls = 0
        self.log: list[str] = []
        self.deadlines: list[float | None] = []
        self.scored = CANDIDATES

    def ask(self, query: Path, deadline_ms: float | None) -> TimedAnswer:
        self.deadlines.append(deadline_ms)
        self.log.append(f"ask {query}")
        return self._answer(1)

    def ask_many(self, queries: Sequence[Path]) -> TimedAnswer:
        self.log.append(f"ask {len(queries)}")
        return self._answer(len(queries))

    def forget(self) -> None:
        self.log.append("forget")

    def warm(self) -> None:
        self.log.append("warm")

    def _answer(self, queries: int) -> TimedAnswer:
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        spent = self.seconds(self.calls)
        self.calls += 1
        self.clock.work(spent)
        stages = {"embed": 0.25 * spent, "score": 0.5 * spent}
        return TimedAnswer(stages, self.scored * queries, CANDIDATES * queries)  # type: ignore[arg-type]


class FakeQueries:
    """Names in turn; making one takes time, which is nobody's latency."""

    def __init__(self, clock: FakeClock, seconds: float = 0.0) -> None:
        self.clock, self.seconds, self.made = clock, seconds, 0

    def take(self, count: int) -> list[Path]:
        self.clock.moment += self.seconds * count
        self.made += count
        return [Path(f"q{number}") for number in range(self.made - count, self.made)]


def sample(latency: float, **changes: object) -> Sample:
    """One query that did not wait."""
    answer = TimedAnswer({"embed": 0.25 * latency}, CANDIDATES, CANDIDATES)
    values: dict[str, object] = {
        "queries": 1, "latency": latency, "service": latency, "cpu": 2 * latency, "answer": answer,
        "ended": latency,
    }  # fmt: skip
    return Sample(**{**values, **changes})  # type: ignore[arg-type]


def environment(**changes: object) -> Environment:
    values: dict[str, object] = {
        "started": "2026-01-01T00:00:00+00:00", "murank": "0.1.0", "python": "3.11.7",
        "numpy": "2.4.6", "numba": "0.68.1", "onnxruntime": "1.32.0", "system": "Linux 6 x86_64",
        "board": None, "cpu": "a processor", "cores": 2, "load_average": 0.5, "power_mode": None,
        "gpu": None, "gpu_driver": None, "threads": 2, "thread_variables": {},
        "providers": {"encoder": ["CPUExecutionProvider"]}, "engine_sha256": "0" * 64,
        "precision": "fp32", "layout": "prefix_first",
    }  # fmt: skip
    return Environment(**{**values, **changes})  # type: ignore[arg-type]


def settings_record(**changes: object) -> SettingsRecord:
    values: dict[str, object] = {
        "scenario": "SingleStream", "candidates": 20, "gallery_size": 1000, "gallery_pool": 80,
        "alignment": "off",
        "method": "k-reciprocal", "images": "drawn", "duration_s": 10.0, "uncached_share": 0.25,
        "warmup_s": 2.0, "qps": None, "streams": None, "deadline_ms": None, "seed": 0,
    }  # fmt: skip
    return SettingsRecord(**{**values, **changes})  # type: ignore[arg-type]


def report(cached: Section | None, **changes: object) -> BenchReport:
    values: dict[str, object] = {
        "status": "complete", "settings": settings_record(), "environment": environment(),
        "cached": cached, "uncached": None, "cold": None, "sweep": {},
        "memory": MemoryFigures(1 << 28, 1 << 29, None), "notes": [],
    }  # fmt: skip
    return BenchReport(**{**values, **changes})  # type: ignore[arg-type]

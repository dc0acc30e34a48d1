"""Samples to figures: quantiles by nearest rank, stages, and the spread of a ratio."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.bench.bench_settings import TARGETS, BenchSettings, Scenario
from murank.bench.early_stopping import (
    discardable,
    early_stopping,
    least_samples,
    needed,
    surely_above,
)
from murank.bench.samples import Sample
from murank.bench.schema import (
    DeadlineFigures,
    LatencyFigures,
    Section,
    ServerFigures,
    StageFigures,
    Target,
    Verdict,
)
from murank.engine.stopwatch import STAGES, Stage

FEW = 100  # of fewer samples the 99th percentile is the largest
LEAST = 5  # samples that can tell how far they spread
_MOST_KEPT = 100_000  # latencies in a report
_DRAWS = 4000
_MS, _US = 1e3, 1e6
_P90, _P99 = 0.9, 0.99
_Draw = Callable[[NDArray[Any], np.random.Generator], NDArray[np.float64]]


def nearest_rank(count: int, share: float) -> int:
    """Index, in ascending order, of the smallest value that `share` of `count` do not exceed."""
    # A float product may come out a hair above a whole number: 0.95 * 100 must be rank 95.
    return max(1, math.ceil(round(share * count, 9))) - 1


def quantile(values: NDArray[Any], share: float) -> float:
    """Return a quantile by nearest rank: always one of the values."""
    return float(np.sort(values)[nearest_rank(len(values), share)])


def percentile(share: float) -> str:
    """Return what a quantile is called: "p99" for 0.99."""
    return f"p{100 * share:.0f}"


def section_of(
    samples: Sequence[Sample], settings: BenchSettings, scenario: Scenario = "SingleStream"
) -> Section:
    """Return the figures of at least one sample.

    In SingleStream and MultiStream each query comes when the last is answered, so that the time
    between two answers, in which the next image is made, is nobody's. Otherwise the clock on the
    wall counts.
    """
    closed = scenario in ("SingleStream", "MultiStream")
    latencies = [one.latency for one in samples]
    queries = sum(one.queries for one in samples)
    seconds = sum(one.service for one in samples) if closed else samples[-1].ended
    return Section(
        queries=queries,
        seconds=seconds,
        throughput_qps=queries / seconds if seconds > 0 else 0.0,
        cpu_ms_per_query=_MS * sum(one.cpu for one in samples) / queries,
        scored_per_query=sum(one.answer.scored for one in samples) / queries,
        latency=latency_figures(np.array(latencies), estimates=scenario != "Offline"),
        target=_target(scenario),
        stages=_stages(samples),
        deadline=_deadline(samples, settings),
        server=None,
        latencies_us=_kept(latencies),
        arrivals_us=_kept([max(0.0, one.ended - one.latency) for one in samples]),
        waits_us=_kept([max(0.0, one.latency - one.service) for one in samples]),
        services_us=_kept([one.service for one in samples]),
    )


def _target(scenario: Scenario) -> Target | None:
    share = TARGETS[scenario]
    return None if share is None else Target(share, least_samples(share))


def server_figures(
    samples: Sequence[Sample], scheduled: int, settings: BenchSettings, *, interrupted: bool = False
) -> ServerFigures:
    """Return how a Server section fared against its bound.

    `scheduled` queries have arrived: all, or, if somebody interrupted, those until the last answer.
    """
    unanswered = scheduled - len(samples)
    late = sum(_MS * one.latency > settings.bound_ms for one in samples)
    fared = "invalid" if unanswered else _verdict(late, len(samples))
    return ServerFigures(
        scheduled=scheduled,
        unanswered=unanswered,
        latency_bound_ms=settings.bound_ms,
        late=late,
        least_queries=max(least_samples(_P99), needed(late, _P99)),
        verdict="interrupted" if interrupted else fared,
    )


def _verdict(late: int, count: int) -> Verdict:
    """Return what so many late answers say: of few, what is beyond doubt; of many, the quantile."""
    enough = count >= least_samples(_P99)
    if enough and late <= discardable(count, _P99):
        return "valid"
    beyond = late > count - 1 - nearest_rank(count, _P99)
    return "invalid" if beyond and (enough or surely_above(late, count, _P99)) else "undecided"


def latency_figures(seconds: NDArray[Any], *, estimates: bool = True) -> LatencyFigures:
    """Return count, mean and quantiles of latencies, in milliseconds.

    `estimates`: LoadGen's, too; latencies that grow with the number of queries have none.
    """
    ordered = _MS * np.sort(seconds)
    early = [early_stopping(ordered, share) if estimates else None for share in (_P90, _P99)]

    def at(share: float) -> float:
        return float(ordered[nearest_rank(len(ordered), share)])

    return LatencyFigures(
        count=len(ordered), mean_ms=float(ordered.mean()), p50_ms=at(0.5), p90_ms=at(0.9),
        p95_ms=at(0.95), p99_ms=at(0.99), max_ms=float(ordered[-1]),
        p90_early_ms=early[0], p99_early_ms=early[1],
    )  # fmt: skip


def ratio_interval(
    before: NDArray[Any], after: NDArray[Any], share: float = 0.5, *, seed: int = 0
) -> tuple[float, float] | None:
    """95 % bootstrap interval of the ratio of a quantile, after / before.

    None if either has fewer than `LEAST` values: draws from one or two hardly differ, and the
    interval would be narrow just where least is known.

    Drawing n values with replacement and taking the k-th smallest is the same as taking, of the
    ordered values, the one at the place that the k-th smallest of n uniform numbers points to,
    and that number is Beta(k, n + 1 - k): no resample need be made.
    """
    return _interval(before, after, lambda values, random: _draws(values, share, random), seed)


def mean_ratio_interval(
    before: NDArray[Any], after: NDArray[Any], *, seed: int = 0
) -> tuple[float, float] | None:
    """The same of the ratio of means of positive values."""
    return _interval(before, after, _mean_draws, seed)


def _interval(
    before: NDArray[Any], after: NDArray[Any], draw: _Draw, seed: int
) -> tuple[float, float] | None:
    if min(len(before), len(after)) < LEAST:
        return None
    random = np.random.default_rng(seed)
    drawn = [draw(values, random) for values in (before, after)]
    low, high = np.quantile(drawn[1] / drawn[0], (0.025, 0.975))
    return float(low), float(high)


def _draws(values: NDArray[Any], share: float, random: np.random.Generator) -> NDArray[np.float64]:
    ordered = np.sort(values).astype(np.float64)
    count = len(ordered)
    rank = nearest_rank(count, share) + 1
    places = (random.beta(rank, count + 1 - rank, _DRAWS) * count).astype(int)
    drawn: NDArray[np.float64] = ordered[np.minimum(places, count - 1)]
    return drawn


def _mean_draws(values: NDArray[Any], random: np.random.Generator) -> NDArray[np.float64]:
    count = len(values)  # one resample at a time: all of them need not fit into memory
    return np.array([values[random.integers(0, count, count)].mean() for _ in range(_DRAWS)])


def _stages(samples: Sequence[Sample]) -> Mapping[Stage, StageFigures]:
    service = sum(one.service for one in samples)
    figures: dict[Stage, StageFigures] = {}
    for stage in STAGES:
        if not any(stage in one.answer.stages for one in samples):
            continue
        seconds = np.array([one.answer.stages.get(stage, 0.0) for one in samples])
        figures[stage] = StageFigures(
            mean_ms=_MS * float(seconds.mean()),
            p50_ms=_MS * quantile(seconds, 0.5),
            p99_ms=_MS * quantile(seconds, 0.99),
            share=float(seconds.sum()) / service if service > 0 else 0.0,
        )
    return figures


def _deadline(samples: Sequence[Sample], settings: BenchSettings) -> DeadlineFigures | None:
    if settings.deadline_ms is None:
        return None
    partial = sum(one.answer.scored < one.answer.candidates for one in samples)
    return DeadlineFigures(
        deadline_ms=settings.deadline_ms,
        partial=partial,
        late=sum(one.overshoot > 0 for one in samples),
        largest_overshoot_ms=_MS * max(one.overshoot for one in samples),
    )


def kept_step(count: int) -> int:
    """Of `count` latencies every n-th is in a report: n."""
    return -(-count // _MOST_KEPT)


def _kept(seconds: Sequence[float]) -> list[int]:
    """Microseconds, in the order measured; evenly thinned if there are very many."""
    return [round(_US * value) for value in seconds[:: kept_step(len(seconds))]]

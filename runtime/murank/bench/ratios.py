"""Ratios of two reports' figures, after / before, with intervals where samples were kept."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank.bench.bench_settings import TARGETS, Scenario
from murank.bench.early_stopping import discardable
from murank.bench.figures import (
    LEAST,
    kept_step,
    mean_ratio_interval,
    percentile,
    quantile,
    ratio_interval,
)
from murank.bench.scenarios import BLOCK
from murank.bench.schema import BenchReport, Section

_QUANTILES: Mapping[str, float] = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
_US_IN_MS = 1e3


@dataclass(frozen=True)
class Ratio:
    """One figure of both reports."""

    name: str
    before: float
    after: float
    ratio: float | None  # after / before; None where before is 0
    low: float | None = None  # 95 % interval of the ratio; None: no samples, or too few
    high: float | None = None
    # Where a ratio beyond the threshold is slower; None: it is shown, and decides nothing.
    slower: Literal["above", "below"] | None = None

    def is_slower(self, threshold: float) -> bool:
        """Whether the ratio is beyond the threshold, even at the near end of its interval."""
        return self._beyond(threshold, self.slower)

    def is_faster(self, threshold: float) -> bool:
        """The same of the other side."""
        return self._beyond(threshold, {"above": "below", "below": "above"}.get(self.slower or ""))

    def _beyond(self, threshold: float, side: str | None) -> bool:
        if self.ratio is None:
            return False
        if side == "above":
            return (self.ratio if self.low is None else self.low) > threshold
        return side == "below" and (self.ratio if self.high is None else self.high) < 1 / threshold


@dataclass(frozen=True)
class RatioPair:
    """A section that both reports have."""

    name: str
    before: Section
    after: Section
    scenario: Scenario | None  # None: they are two

    @property
    def offline(self) -> bool:
        """Whether all queries were there at once."""
        return self.scenario == "Offline"

    @property
    def target(self) -> float | None:
        """By which quantile the scenario is judged."""
        return None if self.scenario is None else TARGETS[self.scenario]

    @property
    def samples(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Microseconds that a median is made of: latencies; of Offline, a query's in each block.

        Offline asks as much as fits into its duration: its latencies say nothing, its pace does.
        """
        of = _of_blocks if self.offline else _of_queries
        return of(self.before), of(self.after)

    @property
    def counts(self) -> tuple[int, int]:
        """How many samples, of each."""
        before, after = self.samples
        return len(before), len(after)


def pairs_of(before: BenchReport, after: BenchReport) -> list[RatioPair]:
    """Return what both reports measured."""
    first, second = before.settings.scenario, after.settings.scenario
    scenario_of: Mapping[str, Scenario | None] = {
        "cached": first if first == second else None,
        "uncached": "SingleStream",  # in every scenario
    }
    pairs = []
    for name, scenario in scenario_of.items():
        old, new = both(before, after, name)
        if old is not None and new is not None:
            pairs.append(RatioPair(name, old, new, scenario))
    return pairs


def ratios_of(before: BenchReport, after: BenchReport, *, same_load: bool) -> Iterator[Ratio]:
    """Yield all; `same_load`: how many candidates were seen says how fast an engine is."""
    for pair in pairs_of(before, after):
        yield from _of_pace(pair) if pair.offline else _of_latencies(pair)
        yield from _of_section(pair, same_load=same_load)
    for count in before.sweep:
        if count in after.sweep:
            medians = [one.sweep[count].latency.p50_ms for one in (before, after)]
            yield _plain(f"{count} candidates: median ms", *medians)
    if before.cold is not None and after.cold is not None:
        for key in ("answered_ms", "load_ms", "first_ms"):
            yield _plain(f"cold {key}", *both(before.cold, after.cold, key))
    if before.memory is not None and after.memory is not None:
        for key in vars(before.memory):
            old, new = both(before.memory, after.memory, key)
            if old is not None and new is not None:
                yield _plain(f"memory {key}", old, new)


def both(before: Any, after: Any, name: str) -> tuple[Any, Any]:
    """Return one attribute of both."""
    return getattr(before, name), getattr(after, name)


def _of_queries(section: Section) -> NDArray[Any]:
    return np.array(section.latencies_us)


def _of_blocks(section: Section) -> NDArray[Any]:
    """Microseconds a query [B] of the whole blocks; of a shorter one if it is all there is."""
    count, kept = section.latency.count, np.array(section.latencies_us)
    blocks = 1 + kept_step(count) * np.arange(len(kept))  # done when each of these was answered
    queries = np.diff(np.minimum(BLOCK * blocks, section.queries), prepend=0)
    spent = np.diff(kept, prepend=0)
    whole = (queries > 0) & (queries % BLOCK == 0)
    some = whole if whole.any() else queries > 0
    means: NDArray[Any] = spent[some] / queries[some]
    return means


def _of_latencies(pair: RatioPair) -> Iterator[Ratio]:
    for key, share in _QUANTILES.items():
        latencies = both(pair.before.latency, pair.after.latency, key)
        ratio = _with_interval(_plain(f"{pair.name} {key}", *latencies), pair, share)
        yield ratio if share in (0.5, pair.target) else replace(ratio, slower=None)
        if share == pair.target:
            yield _of_tail(pair, share)
    means = both(pair.before.latency, pair.after.latency, "mean_ms")
    yield _plain(f"{pair.name} mean_ms", *means)


def _of_tail(pair: RatioPair, target: float) -> Ratio:
    """Return the ratio of what LoadGen would estimate the target to be; of few, of the largest.

    Its rank depends on how many there are: that of the fewer is taken for both. A plain quantile
    hardly sees what is slower from there on; the share of slow queries is uncertain, too.
    """
    fewer = min(pair.counts)
    above = max(1, discardable(fewer, target))
    share = (fewer - above + 0.5) / fewer
    latencies = (quantile(one, share) / _US_IN_MS for one in pair.samples)
    name = f"{pair.name} {percentile(target)}_ms, early stopping"
    return _with_interval(_plain(name, *latencies), pair, share)


def _of_pace(pair: RatioPair) -> Iterator[Ratio]:
    """The pace of most blocks, and that of all: a few slow ones are in the latter."""
    yield from _of_blocks_median(pair)
    plain = _plain(f"{pair.name} throughput_qps", *both(pair.before, pair.after, "throughput_qps"))
    whole = plain.ratio is not None and min(one.min() for one in pair.samples) > 0
    interval = mean_ratio_interval(*pair.samples) if whole else None
    if interval is not None:  # of the time a query, whose inverse it is
        plain = replace(plain, low=1 / interval[1], high=1 / interval[0], slower="below")
    yield plain


def _of_blocks_median(pair: RatioPair) -> Iterator[Ratio]:
    before, after = (quantile(one, 0.5) / _US_IN_MS for one in pair.samples)
    plain = _plain(f"{pair.name} p50_ms a query of a block", before, after)
    yield _with_interval(plain, pair, 0.5)


def _of_section(pair: RatioPair, *, same_load: bool) -> Iterator[Ratio]:
    name, before, after = pair.name, pair.before, pair.after
    for key in ("cpu_ms_per_query",) if pair.offline else ("throughput_qps", "cpu_ms_per_query"):
        yield _plain(f"{name} {key}", *both(before, after, key))
    seen = _plain(f"{name} scored_per_query", *both(before, after, "scored_per_query"))
    # With a deadline a slower engine takes no longer: fewer candidates are seen.
    decides = same_load and min(pair.counts) >= LEAST
    yield replace(seen, slower="below") if decides else seen
    if before.deadline is not None and after.deadline is not None:
        for key in ("partial", "late"):
            counts = both(before.deadline, after.deadline, key)
            yield _plain(
                f"{name} {key} share", counts[0] / before.queries, counts[1] / after.queries
            )
    for stage in before.stages:
        if stage in after.stages:
            old, new = before.stages[stage].mean_ms, after.stages[stage].mean_ms
            yield _plain(f"{name} {stage} mean_ms", old, new)


def _with_interval(plain: Ratio, pair: RatioPair, share: float) -> Ratio:
    before, after = pair.samples
    if plain.ratio is None or before.min() <= 0:
        return plain
    interval = ratio_interval(before, after, share)
    if interval is None:
        return plain
    return replace(plain, low=interval[0], high=interval[1], slower="above")


def _plain(name: str, before: float, after: float) -> Ratio:
    return Ratio(name, before, after, after / before if before else None)

"""Two reports side by side: ratios of their figures, and whether the second is slower."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.bench._figures import quantile, ratio_interval
from murank.bench._schema import Environment, Report, Section, SettingsRecord

Verdict = Literal["regression", "improvement", "no difference"]
_QUANTILES: Mapping[str, float] = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
_SECTIONS = ("cached", "uncached")
# Of the settings, those that change what is asked of an engine.
_SAME_LOAD = (
    "scenario", "candidates", "gallery_size", "gallery_pool", "method", "images", "qps", "streams",
    "deadline_ms",
)  # fmt: skip
_US_IN_MS = 1e3
_OF_THE_RUN = ("started", "load_average")


@dataclass(frozen=True)
class Ratio:
    """One figure of both reports."""

    name: str
    before: float
    after: float
    ratio: float | None  # after / before; None where before is 0
    low: float | None = None  # 95 % interval of the ratio; None: no samples were kept of it
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What two reports say of each other."""

    ratios: tuple[Ratio, ...]
    verdict: Verdict
    slower: tuple[str, ...]  # medians beyond the threshold
    threshold: float
    warnings: tuple[str, ...]


def compare(
    before: Report, after: Report, *, threshold: float = 1.10, force: bool = False
) -> Comparison:
    """Compare two reports.

    Parameters
    ----------
    before, after
        What was, and what is.
    threshold
        A regression: the ratio of medians is beyond this even at the low end of its interval.
    force
        Compare though they measured different loads.

    Raises
    ------
    InputError
        The loads differ, nothing was measured in both, or the threshold is below 1.
    """
    if not threshold >= 1:
        raise InputError(f"--threshold must be at least 1, got {threshold:g}")
    different = _different_load(before, after)
    if different and not force:
        raise InputError(
            f"the two reports measured different loads: {'; '.join(different)}; measure the same, "
            "or pass --force"
        )
    ratios = tuple(_ratios(before, after))
    medians = [one for one in ratios if one.low is not None and "p50" in one.name]
    if not medians:
        raise InputError("the two reports have no section in common that measured anything")
    slower = tuple(one.name for one in medians if one.low is not None and one.low > threshold)
    faster = any(one.high is not None and one.high < 1 / threshold for one in medians)
    verdict: Verdict = "regression" if slower else "improvement" if faster else "no difference"
    return Comparison(ratios, verdict, slower, threshold, tuple(_warnings(before, after)))


def _different_load(before: Report, after: Report) -> list[str]:
    pairs = [(name, *_both(*_settings(before, after), name)) for name in _SAME_LOAD]
    return [f"{name} is {old} and {new}" for name, old, new in pairs if old != new]


def _settings(before: Report, after: Report) -> tuple[SettingsRecord, SettingsRecord]:
    return before.settings, after.settings


def _both(before: Any, after: Any, name: str) -> tuple[Any, Any]:
    return getattr(before, name), getattr(after, name)


def _ratios(before: Report, after: Report) -> Iterator[Ratio]:
    for name in _SECTIONS:
        old, new = _both(before, after, name)
        if old is not None and new is not None:
            scenarios = _both(*_settings(before, after), "scenario")
            offline = name == "cached" and scenarios == ("Offline", "Offline")
            yield from (_of_blocks if offline else _of_latencies)(name, old, new)
            yield from _of_sections(name, old, new)
    for count in before.sweep:
        if count in after.sweep:
            medians = [one.sweep[count].latency.p50_ms for one in (before, after)]
            yield _plain(f"{count} candidates: median ms", *medians)
    if before.cold is not None and after.cold is not None:
        for key in ("answered_ms", "load_ms", "first_ms"):
            yield _plain(f"cold {key}", *_both(before.cold, after.cold, key))
    if before.memory is not None and after.memory is not None:
        for key in vars(before.memory):
            old, new = _both(before.memory, after.memory, key)
            if old is not None and new is not None:
                yield _plain(f"memory {key}", old, new)


def _of_latencies(name: str, before: Section, after: Section) -> Iterator[Ratio]:
    samples = [np.array(one.latencies_us) for one in (before, after)]
    for key, share in _QUANTILES.items():
        plain = _plain(f"{name} {key}", *_both(before.latency, after.latency, key))
        yield _with_interval(plain, samples[0], samples[1], share)
    yield _plain(f"{name} mean_ms", before.latency.mean_ms, after.latency.mean_ms)


def _of_blocks(name: str, before: Section, after: Section) -> Iterator[Ratio]:
    """Offline asks as much as fits into its duration: its latencies say nothing, its pace does."""
    blocks = [np.diff(one.latencies_us, prepend=0) for one in (before, after)]
    # The last block is shorter, where there are several.
    whole = [one[: max(1, len(one) - 1)] for one in blocks]
    medians = [quantile(one, 0.5) / _US_IN_MS for one in whole]
    yield _with_interval(_plain(f"{name} block p50_ms", *medians), whole[0], whole[1], 0.5)


def _of_sections(name: str, before: Section, after: Section) -> Iterator[Ratio]:
    for key in ("throughput_qps", "cpu_ms_per_query"):
        yield _plain(f"{name} {key}", *_both(before, after, key))
    for stage in before.stages:
        if stage in after.stages:
            old, new = before.stages[stage].mean_ms, after.stages[stage].mean_ms
            yield _plain(f"{name} {stage} mean_ms", old, new)


def _with_interval(plain: Ratio, before: NDArray[Any], after: NDArray[Any], share: float) -> Ratio:
    if plain.ratio is None or before.min() <= 0:
        return plain
    low, high = ratio_interval(before, after, share)
    return replace(plain, low=low, high=high)


def _plain(name: str, before: float, after: float) -> Ratio:
    return Ratio(name, before, after, after / before if before else None)


def _warnings(before: Report, after: Report) -> Iterator[str]:
    for name, report in (("first", before), ("second", after)):
        if report.status == "interrupted":
            yield f"the {name} report was interrupted"
        for section in _SECTIONS:
            found = getattr(report, section)
            if found is not None and found.server is not None and found.server.unanswered:
                yield (
                    f"the {name} report could not keep up: {found.server.unanswered} of "
                    f"{found.server.scheduled} queries were never answered"
                )
    for text in _different_load(before, after):
        yield f"another load: {text}"
    yield from _environment(before.environment, after.environment)


def _environment(before: Environment, after: Environment) -> Iterator[str]:
    for name in vars(before):
        old, new = _both(before, after, name)
        if name not in _OF_THE_RUN and old != new:
            yield f"another environment: {name} is {_shown(old)} and {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "nothing"
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a hash: its beginning

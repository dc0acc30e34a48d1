"""Two reports side by side: ratios of their figures, and whether the second is slower."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from murank._exceptions import InputError
from murank.bench.early_stopping import least_samples
from murank.bench.figures import LEAST, percentile
from murank.bench.ratios import Ratio, RatioPair, both, pairs_of, ratios_of
from murank.bench.schema import BenchReport, Environment, ServerFigures

# Undecided: nothing that could decide was measured often enough.
Verdict = Literal["regression", "improvement", "no difference", "undecided"]
# Of the settings, those that change what is asked of an engine.
_SAME_LOAD = (
    "scenario", "candidates", "gallery_size", "gallery_pool", "method", "images", "qps", "streams",
    "deadline_ms", "alignment",
)  # fmt: skip
_SERVER = "cached Server verdict, {} and {}"
_OF_THE_RUN = ("started", "load_average")


@dataclass(frozen=True)
class Comparison:
    """What two reports say of each other."""

    ratios: tuple[Ratio, ...]
    verdict: Verdict
    slower: tuple[str, ...]  # figures beyond the threshold, and a Server run that became invalid
    threshold: float
    warnings: tuple[str, ...]


def compare(
    before: BenchReport, after: BenchReport, *, threshold: float = 1.10, force: bool = False
) -> Comparison:
    """Compare two reports.

    Parameters
    ----------
    before, after
        What was, and what is.
    threshold
        A regression: the ratio of medians, or of the quantile that the scenario is judged by, is
        beyond this even at the low end of its interval, that of Offline's throughput below its
        inverse at the high end, or that of the candidates that were seen below its inverse.
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
    pairs = pairs_of(before, after)
    if not pairs:
        raise InputError("the two reports have no section in common that measured anything")
    ratios = tuple(ratios_of(before, after, same_load=not different))
    slower = [one.name for one in ratios if one.is_slower(threshold)]
    faster = [one.name for one in ratios if one.is_faster(threshold)]
    turned = None if different else _turned(before, after)
    if turned is not None:
        (slower if turned[1] == "invalid" else faster).append(_SERVER.format(*turned))
    warnings = (*_too_few(pairs), *_warnings(before, after))
    decided = slower or faster or any(one.slower for one in ratios)
    verdict: Verdict = (
        "regression" if slower else "improvement" if faster else
        "no difference" if decided else "undecided"
    )  # fmt: skip
    return Comparison(ratios, verdict, tuple(slower), threshold, warnings)


def _turned(before: BenchReport, after: BenchReport) -> tuple[str, str] | None:
    """Return a Server's two verdicts if one alone is invalid, of one bound."""
    old, new = _server_of(before), _server_of(after)
    if old is None or new is None or old.latency_bound_ms != new.latency_bound_ms:
        return None
    verdicts = old.verdict, new.verdict
    one_alone = verdicts.count("invalid") == 1 and "interrupted" not in verdicts
    return verdicts if one_alone else None


def _server_of(report: BenchReport) -> ServerFigures | None:
    return None if report.cached is None else report.cached.server


def _different_load(before: BenchReport, after: BenchReport) -> list[str]:
    settings = before.settings, after.settings
    pairs = [(name, *both(*settings, name)) for name in _SAME_LOAD]
    return [f"{name} is {old} and {new}" for name, old, new in pairs if old != new]


def _too_few(pairs: Sequence[RatioPair]) -> Iterator[str]:
    for pair in pairs:
        first, second = pair.counts
        what = "blocks" if pair.offline else "samples"
        if min(first, second) < LEAST:
            yield (
                f"too few samples: {pair.name} has {first} and {second} {what}, and decides "
                f"nothing below {LEAST}; measure with a longer --duration"
            )
        elif pair.target is not None and min(first, second) < least_samples(pair.target):
            yield (
                f"few samples: {pair.name} has {first} and {second}, and an estimate of "
                f"{percentile(pair.target)} takes {least_samples(pair.target)}; the largest stands "
                "for it"
            )


def _warnings(before: BenchReport, after: BenchReport) -> Iterator[str]:
    for name, report in (("first", before), ("second", after)):
        if report.status == "interrupted":
            yield f"the {name} report was interrupted"
        if is_busy(report.environment):
            yield f"the {name} report was measured on a busy machine: {load_of(report.environment)}"
        fared = _server_of(report)
        if fared is not None and _fell_behind(fared):
            yield (
                f"the {name} report could not keep up: {fared.unanswered} of {fared.scheduled} "
                "queries were never answered"
            )
    old, new = _server_of(before), _server_of(after)
    if old is not None and new is not None:
        yield from _two_servers(old, new)
    for text in _different_load(before, after):
        yield f"another load: {text}"
    yield from _environment(before.environment, after.environment)


def _two_servers(old: ServerFigures, new: ServerFigures) -> Iterator[str]:
    if old.latency_bound_ms != new.latency_bound_ms:
        yield (
            f"another latency bound: {old.latency_bound_ms:g} and {new.latency_bound_ms:g} ms, so "
            "the verdicts of Server are not compared"
        )
    if old.verdict != new.verdict:
        yield f"the verdicts of Server are {old.verdict} and {new.verdict}"


def is_busy(where: Environment) -> bool:
    """Whether others were at work on half of the cores, or more, at the start."""
    return where.load_average is not None and 2 * where.load_average > where.cores


def load_of(where: Environment) -> str:
    """Say how much was going on."""
    return f"load average {where.load_average:.1f} on {where.cores} cores"


def _fell_behind(fared: ServerFigures) -> bool:
    # Who waits when somebody presses Ctrl-C might have been answered.
    return fared.verdict != "interrupted" and fared.unanswered > 0


def _environment(before: Environment, after: Environment) -> Iterator[str]:
    for name in vars(before):
        old, new = both(before, after, name)
        if name not in _OF_THE_RUN and old != new:
            yield f"another environment: {name} is {_shown(old)} and {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "nothing"
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a hash: its beginning

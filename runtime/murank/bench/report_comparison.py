"""Two reports side by side: ratios of their figures, and whether the second is slower."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from murank._exceptions import InputError
from murank.bench.figures import LEAST
from murank.bench.ratios import SECTIONS, Ratio, RatioPair, both, pairs_of, ratios_of
from murank.bench.schema import BenchReport, Environment, ServerFigures

# Undecided: nothing that could decide was measured often enough.
Verdict = Literal["regression", "improvement", "no difference", "undecided"]
# Of the settings, those that change what is asked of an engine.
_SAME_LOAD = (
    "scenario", "candidates", "gallery_size", "gallery_pool", "method", "images", "qps", "streams",
    "deadline_ms", "alignment",
)  # fmt: skip
_OF_THE_RUN = ("started", "load_average")


@dataclass(frozen=True)
class Comparison:
    """What two reports say of each other."""

    ratios: tuple[Ratio, ...]
    verdict: Verdict
    slower: tuple[str, ...]  # figures beyond the threshold
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
        A regression: the ratio of medians is beyond this even at the low end of its interval, or
        that of the candidates that were seen below its inverse.
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
    slower = tuple(one.name for one in ratios if one.is_slower(threshold))
    warnings = (*_too_few(pairs), *_warnings(before, after))
    return Comparison(ratios, _verdict(ratios, threshold), slower, threshold, warnings)


def _verdict(ratios: Sequence[Ratio], threshold: float) -> Verdict:
    if not any(one.slower for one in ratios):
        return "undecided"
    if any(one.is_slower(threshold) for one in ratios):
        return "regression"
    faster = any(one.is_faster(threshold) for one in ratios)
    return "improvement" if faster else "no difference"


def _different_load(before: BenchReport, after: BenchReport) -> list[str]:
    settings = before.settings, after.settings
    pairs = [(name, *both(*settings, name)) for name in _SAME_LOAD]
    return [f"{name} is {old} and {new}" for name, old, new in pairs if old != new]


def _too_few(pairs: Sequence[RatioPair]) -> Iterator[str]:
    for pair in pairs:
        first, second = pair.counts
        if min(first, second) < LEAST:
            what = "blocks" if pair.offline else "samples"
            yield (
                f"too few samples: {pair.name} has {first} and {second} {what}, and decides "
                f"nothing below {LEAST}; measure with a longer --duration"
            )


def _warnings(before: BenchReport, after: BenchReport) -> Iterator[str]:
    for name, report in (("first", before), ("second", after)):
        if report.status == "interrupted":
            yield f"the {name} report was interrupted"
        if is_busy(report.environment):
            yield f"the {name} report was measured on a busy machine: {load_of(report.environment)}"
        for section in SECTIONS:
            figures = getattr(report, section)
            if figures is not None and _fell_behind(figures.server):
                yield (
                    f"the {name} report could not keep up: {figures.server.unanswered} of "
                    f"{figures.server.scheduled} queries were never answered"
                )
    for text in _different_load(before, after):
        yield f"another load: {text}"
    yield from _environment(before.environment, after.environment)


def is_busy(where: Environment) -> bool:
    """Whether others were at work on half of the cores, or more, at the start."""
    return where.load_average is not None and 2 * where.load_average > where.cores


def load_of(where: Environment) -> str:
    """Say how much was going on."""
    return f"load average {where.load_average:.1f} on {where.cores} cores"


def _fell_behind(fared: ServerFigures | None) -> bool:
    # Who waits when somebody presses Ctrl-C might have been answered.
    return fared is not None and fared.verdict != "interrupted" and fared.unanswered > 0


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

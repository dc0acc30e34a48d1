"""What `murank bench` tells a person."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from murank.bench.bench_settings import TARGETS
from murank.bench.early_stopping import least_samples
from murank.bench.figures import FEW, percentile, quantile
from murank.bench.report_comparison import is_busy, load_of
from murank.bench.scenarios import BLOCK
from murank.bench.schema import BenchReport, ColdFigures, MemoryFigures, Section, ServerFigures
from murank.engine.stopwatch import STAGES

_LABEL, _CELL = 22, 12
_US_IN_MS = 1e3
Cell = Callable[[Section], str]


def report_lines(report: BenchReport) -> Iterator[str]:
    """Yield a table, the cold start, memory, and what must be known."""
    yield _head(report)
    sections = {
        name: section
        for name, section in (("cached", report.cached), ("uncached", report.uncached))
        if section is not None
    }
    if sections:
        yield from _table(sections)
    if report.sweep:
        yield from _sweep(report)
    if report.cold is not None:
        yield _cold(report.cold)
    if report.memory is not None:
        yield _memory(report.memory)
    yield from _notes(report, sections)


def _head(report: BenchReport) -> str:
    asked, where = report.settings, report.environment
    method = "scoring alone" if asked.method is None else asked.method
    aligned = "" if asked.alignment == "off" else f" on aligned features ({asked.alignment})"
    used = sorted({name[0] for name in where.providers.values() if name})
    target = TARGETS[asked.scenario]
    judged = "throughput" if target is None else percentile(target)
    return (
        f"{asked.scenario}, judged by {judged}: {asked.candidates} candidates of "
        f"{asked.gallery_size} images, {method}{aligned}, {where.precision}, "
        f"{', '.join(used) or 'not loaded'}, {where.cores} cores"
    )


def _table(sections: dict[str, Section]) -> Iterator[str]:
    yield " " * _LABEL + "".join(f"{name:>{_CELL}}" for name in sections)
    rows: list[tuple[str, Cell]] = [
        ("queries", lambda one: str(one.queries)),
        ("queries a second", lambda one: f"{one.throughput_qps:.2f}"),
        ("CPU ms a query", lambda one: _ms(one.cpu_ms_per_query)),
        ("candidates seen", lambda one: f"{one.scored_per_query:.1f}"),
        *((name, _latency(key)) for name, key in _LATENCIES),
        *(_WAITING if any(one.server is not None for one in sections.values()) else ()),
        *((f"  {stage}", _stage(stage)) for stage in STAGES if _has(sections, stage)),
    ]
    for name, cell in rows:
        yield f"{name:<{_LABEL}}" + "".join(f"{cell(one):>{_CELL}}" for one in sections.values())


_LATENCIES = (
    ("mean ms", "mean_ms"), ("p50 ms", "p50_ms"), ("p90 ms", "p90_ms"),
    ("p90, early stopping", "p90_early_ms"), ("p95 ms", "p95_ms"), ("p99 ms", "p99_ms"),
    ("p99, early stopping", "p99_early_ms"), ("max ms", "max_ms"),
)  # fmt: skip


def _latency(key: str) -> Cell:
    def cell(one: Section) -> str:
        value = getattr(one.latency, key)
        mark = "*" if key == "p99_ms" and one.latency.count < FEW else ""
        return "-" if value is None else _ms(value) + mark

    return cell


def _p99_of(key: str) -> Cell:
    def cell(one: Section) -> str:
        values = getattr(one, key)
        return "-" if values is None else _ms(quantile(np.array(values), 0.99) / _US_IN_MS)

    return cell


_WAITING: Sequence[tuple[str, Cell]] = (
    ("  of it waiting, p99", _p99_of("waits_us")), ("  of it served, p99", _p99_of("services_us"))
)  # fmt: skip


def _stage(stage: str) -> Cell:
    def cell(one: Section) -> str:
        figures_of_stage = {str(name): figures for name, figures in one.stages.items()}.get(stage)
        return (
            "-"
            if figures_of_stage is None
            else f"{_ms(figures_of_stage.mean_ms)} {100 * figures_of_stage.share:3.0f} %"
        )

    return cell


def _has(sections: dict[str, Section], stage: str) -> bool:
    return any(stage in one.stages for one in sections.values())


def _ms(value: float) -> str:
    return f"{value:.2f}"


def _sweep(report: BenchReport) -> Iterator[str]:
    points = sorted((int(count), section.latency) for count, section in report.sweep.items())
    shown = ", ".join(f"{count}: {latency.p50_ms:.2f}" for count, latency in points)
    yield f"p50 ms by candidates, cached, one at a time: {shown}"


def _cold(cold: ColdFigures) -> str:
    return (
        f"cold start (median of {cold.runs}): import {cold.import_ms:.0f} ms, load "
        f"{cold.load_ms:.0f}, gallery {cold.gallery_ms:.0f}, first query {cold.first_ms:.0f}, "
        f"second {cold.second_ms:.0f}; first answer after {cold.answered_ms:.0f} ms"
    )


def _memory(memory: MemoryFigures) -> str:
    loaded, peak, device = (
        "unknown" if count is None else f"{count / (1 << 20):.0f} MiB"
        for count in vars(memory).values()
    )
    gpu = "" if memory.device_bytes is None else f", on the GPU {device}"
    return f"memory: {loaded} loaded, {peak} at most{gpu}"


def _notes(report: BenchReport, sections: dict[str, Section]) -> Iterator[str]:
    if any(one.latency.count < FEW for one in sections.values()):
        yield f"* of fewer than {FEW} samples: the 99th percentile is the largest"
    if any(one.target and one.latency.p99_early_ms is None for one in sections.values()):
        yield (
            f"early stopping: LoadGen's estimate of a quantile; it takes {least_samples(0.9)} "
            f"samples for p90, {least_samples(0.99)} for p99"
        )
    if report.settings.scenario == "MultiStream":
        yield f"cached latencies and stages are those of groups of {report.settings.streams}"
    if report.settings.scenario == "Offline":
        yield f"cached stages are those of blocks of {BLOCK}; latencies count from the beginning"
    if report.settings.scenario != "SingleStream" and report.uncached is not None:
        yield "uncached is one query at a time in every scenario"
    for name, section in sections.items():
        yield from _section_notes(name, section)
    if is_busy(report.environment):
        yield (
            f"others were at work when it began ({load_of(report.environment)}): CPU time is more "
            "to be trusted than latency"
        )
    if report.status == "interrupted":
        yield "interrupted: this is what was measured so far"
    for note in report.notes:
        yield f"note: {note}"


def _section_notes(name: str, section: Section) -> Iterator[str]:
    late, fared = section.deadline, section.server
    if late is not None:
        count = section.queries
        yield (
            f"{name}, {late.deadline_ms:g} ms: {late.partial} of {count} answers partial, "
            f"{late.late} late, by {late.largest_overshoot_ms:.2f} ms at most"
        )
    if fared is not None:
        yield "; ".join(server_lines(name, section, fared))


def server_lines(name: str, section: Section, fared: ServerFigures) -> Iterator[str]:
    """Yield a Server's verdict, and what it rests on."""
    yield f"{name} is {fared.verdict}: p99 must be within {fared.latency_bound_ms:g} ms"
    if fared.unanswered:
        how = "still waited" if fared.verdict == "interrupted" else "were never answered"
        yield f"{fared.unanswered} of {fared.scheduled} queries {how}"
    if fared.late:
        yield f"{fared.late} of {section.queries} answers were late"
    if fared.verdict == "undecided":
        yield f"{section.queries} queries are too few, {fared.least_queries} would tell"

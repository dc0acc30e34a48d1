"""The page: what was ranked, what it brought, what changed, and how it came about."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.files.atomic import write_files
from murank.report.changed_queries import Pictures, shown
from murank.report.charts import cmc_chart, histograms
from murank.report.markup import Markup, element, section, table
from murank.report.style import STYLE
from murank.rerank.metrics import Metrics
from murank.rerank.mu import MuDistances
from murank.rerank.verdicts import Verdicts
from murank.sheet import SheetRow

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_COLUMNS = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
_SKIPPED = 200  # that are listed
# Stage of murank score -> what job.json counts of it.
_RATES = {"embed": ("images_embedded", "images"), "mu": ("pairs_asked", "pairs")}


@dataclass(frozen=True)
class ReportFacts:
    """What a report tells."""

    name: str  # of what the distances went through, such as "k-reciprocal + mu"
    summary: Mapping[str, Any]  # as summary.json
    metrics: Mapping[str, Metrics]  # by row of the table; the first is the encoder
    curves: Mapping[str, NDArray[np.floating]]  # CMC by name: before, aligned, after; or none
    mu: MuDistances | None
    verdicts: Verdicts | None  # None: nothing could be evaluated
    job: Mapping[str, Any] | None  # as job.json
    changes: Sequence[SheetRow] | None  # None: pictures are left out
    counts: Sequence[str] = ()  # sentences on how many changed
    pictures: Pictures | None = None


def write_report(path: str | os.PathLike[str], facts: ReportFacts) -> None:
    """Write the page, whole or not at all, readable by its owner alone. Raises OutputError."""
    page = report_html(facts).encode()
    file = Path(path)
    write_files(file.parent, {file.name: lambda handle: handle.write(page)})


def report_html(facts: ReportFacts) -> str:
    """Return the page: one file, no script, nothing that is fetched."""
    title = f"Re-ranking: {facts.name}"
    head = [
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="referrer" content="no-referrer">'),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    ]
    parts = [
        _ranked(facts), _metrics(facts), _curves(facts), _mu(facts), _changes(facts),
        _skipped(facts), _times(facts), _providers(facts), _notes(facts),
    ]  # fmt: skip
    top = element("header", element("h1", title), element("p", facts.summary["notice"]))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    foot = element("footer", f"murank {facts.summary['murank_version']}, {now}")
    body = element("body", top, element("main", *parts), foot)
    return f'<!DOCTYPE html>\n<html lang="en">{element("head", *head)}\n{body}</html>\n'


def _ranked(facts: ReportFacts) -> Markup:
    summary, counts = facts.summary, facts.summary["counts"]
    rows = [
        ("source", summary["inputs"]["source"]),
        ("queries", f"{counts['num_query']:,}"),
        ("gallery images", f"{counts['num_gallery']:,}"),
        ("features", f"{counts['dim']:,} values"),
        ("mu", _told_mu(facts)),
        ("cameras", _told_alignment(summary["alignment"])),
        ("method", f"{summary['method']} ({_listed(summary['parameters'])})"),
        ("evaluation", _listed(summary["protocol"])),
    ]
    if facts.job is not None:
        engine = facts.job["engine"]
        rows.append(("engine", f"{engine['folder']}, {engine['precision']}"))
        rows.append(("sha256 of the engine", engine["sha256"]))
    return section("What was ranked", table("The job", ("what", "value"), rows))


def _metrics(facts: ReportFacts) -> Markup:
    if not facts.metrics:
        return section("Metrics", element("p", facts.summary["not_evaluated"]))
    rows = [
        (name, *(_percent(metrics.get(key)) for key in _COLUMNS))
        for name, metrics in facts.metrics.items()
    ]
    first, *_, last = [*facts.metrics.values()] * 2
    if len(rows) > 1:
        rows.append(("gain", *(_gain(first.get(key), last.get(key)) for key in _COLUMNS)))
    caption = "Before, between and after, in percent"
    valid = facts.summary["metrics"]["after"]["num_valid"]
    said = element("p", f"{valid:,} queries have a right match that is not dropped, and count.")
    return section("Metrics", table(caption, ("ranking", *_COLUMNS), rows, numbers=True), said)


def _curves(facts: ReportFacts) -> Markup:
    if not facts.curves:
        return Markup("")
    last = min(len(curve) for curve in facts.curves.values())
    ranks = [rank for rank in (1, 2, 5, 10, 20, 50) if rank <= last]
    rows = [
        (name, *(_percent(float(curve[rank - 1])) for rank in ranks))
        for name, curve in facts.curves.items()
    ]
    heads = ("ranking", *(f"rank {rank}" for rank in ranks))
    numbers = table("Queries with a right match by then, in percent", heads, rows, numbers=True)
    figure = element(
        "figure", cmc_chart(facts.curves),
        element("figcaption", "Queries whose first right match is at a rank or before (CMC)."),
    )  # fmt: skip
    return section("CMC", figure, numbers)


def _mu(facts: ReportFacts) -> Markup:
    if facts.mu is None:
        return Markup("")
    said = "Share of candidates by mu, p(different person): small = same person."
    chart = histograms(_kinds(facts.mu, facts.verdicts))
    figure = element("figure", chart, element("figcaption", said))
    return section("Mu of the candidates", figure)


def _kinds(mu: MuDistances, verdicts: Verdicts | None) -> dict[str, NDArray[np.floating[Any]]]:
    """Return mu of right and wrong candidates; what evaluators leave out is left out."""
    if verdicts is None:
        return {"all candidates; right and wrong are unknown": mu.mu.ravel()}
    is_same, dropped = verdicts.listed(mu.candidates)
    return {
        "right: same person": mu.mu[is_same & ~dropped],
        "wrong: another person": mu.mu[~is_same & ~dropped],
    }


def _changes(facts: ReportFacts) -> Markup:
    said = [element("p", text) for text in facts.counts]
    if facts.changes is None or facts.pictures is None:
        return section("Largest changes", *said, element("p", "Pictures were left out."))
    if not facts.changes:
        return section("Largest changes", *said, element("p", "No query changed among the first."))
    how = "gains and losses in turn" if facts.verdicts is not None else "most new candidates first"
    said.append(
        element("p", f"Shown are {len(facts.changes)}, {how}. Below each: rank, distance, mu.")
    )
    rows = shown(facts.changes, facts.pictures, before="encoder", after=facts.name)
    return section("Largest changes", *said, rows)


def _skipped(facts: ReportFacts) -> Markup:
    skipped = [] if facts.job is None else facts.job["skipped"]
    if not skipped:
        return section("Images skipped", element("p", "None."))
    rows = [(one["path"], one["reason"]) for one in skipped[:_SKIPPED]]
    more = len(skipped) - len(rows)
    said = [element("p", f"And {more:,} more, in job.json.")] if more else []
    count = f"{len(skipped):,} image{'s' * (len(skipped) > 1)} skipped"
    listed = table(count, ("image", "why"), rows)
    return section("Images skipped", listed, *said)


def _times(facts: ReportFacts) -> Markup:
    rows = []
    if facts.job is not None:
        for stage, seconds in (facts.job.get("seconds") or {}).items():
            key, unit = _RATES.get(stage, ("", ""))
            count = facts.job.get(key) or 0
            rate = f"{count:,} {unit}, {count / seconds:,.1f}/s" if count and seconds else ""
            rows.append((f"score: {stage}", f"{seconds:,.3f}", rate))
    queries = facts.summary["counts"]["num_query"]
    for stage, seconds in facts.summary["seconds"].items():
        is_pass = stage in ("encoder", "aligned", "without_mu", "rerank") and seconds
        rate = f"{queries:,} queries, {queries / seconds:,.1f}/s" if is_pass else ""
        rows.append((f"rerank: {stage}", f"{seconds:,.3f}", rate))
    heads = ("stage", "seconds", "count and rate")
    return section("Time", table("Seconds and rates by stage", heads, rows))


def _providers(facts: ReportFacts) -> Markup:
    rows = [("re-ranking", facts.summary["parameters"].get("device", "cpu"))]
    providers = {} if facts.job is None else facts.job["engine"]["providers"]
    rows += [(f"graph {name}", _flat(value)) for name, value in providers.items()]
    return section("What ran it", table("Providers", ("part", "by"), rows))


def _notes(facts: ReportFacts) -> Markup:
    of_job = [] if facts.job is None else list(facts.job.get("notes") or ())
    notes = list(dict.fromkeys([*of_job, *facts.summary["notes"]]))
    if not notes:
        return section("Notes", element("p", "None."))
    return section("Notes", element("ul", *(element("li", note) for note in notes)))


def _told_mu(facts: ReportFacts) -> str:
    counts = facts.summary["counts"]
    parts = [
        f"of {counts[key]:,} candidates {of}"
        for key, of in (("mu_candidates", "a query"), ("gallery_mu_candidates", "a gallery image"))
        if counts[key]
    ]
    return ", ".join(parts) or "none"


def _told_alignment(alignment: Mapping[str, Any]) -> str:
    if alignment["level"] == "off":
        return "not aligned"
    return f"aligned ({alignment['level']}, {alignment['dims']} dimensions)"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_flat(value)}" for key, value in values.items())


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return _listed(value)
    return ", ".join(map(_flat, value)) if isinstance(value, list | tuple) else str(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _gain(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{100 * (after - before):+.2f}"

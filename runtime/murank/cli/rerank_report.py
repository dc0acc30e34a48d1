"""What `murank rerank` prints: counts, metrics before and after, where the result is."""

import argparse
from typing import Any

from murank.cli.output import not_shown
from murank.cli.ranked_source import RankedSource
from murank.cli.skipped_report import skipped_lines
from murank.cli.table import gain, table
from murank.rerank.metrics import Metrics
from murank.rerank.verdicts import evaluated_line

_COLUMNS = ("mAP", "rank-1", "rank-5", "rank-10")


def method_name(method: str, source: RankedSource) -> str:
    """Return the name of what the distances went through."""
    parts = ["mu"] * (source.mu is not None) + ["gallery mu"] * (source.gallery_mu is not None)
    return " + ".join([method, *parts])


def report(args: argparse.Namespace, source: RankedSource, summary: dict[str, Any]) -> list[str]:
    """Return the lines."""
    counts, metrics = summary["counts"], summary["metrics"]
    head = f"{counts['num_query']} queries, {counts['num_gallery']} gallery images"
    after = metrics["after"]
    if after is None:
        lines = [head, summary["not_evaluated"]]
    else:
        lines = [f"{head}, {evaluated_line(summary['protocol'], after)}"]
        lines += _comparison(method_name(args.method, source), metrics, summary["alignment"])
    if summary["alignment"]["level"] == "off" and summary["alignment"]["note"] is not None:
        lines.append(summary["alignment"]["note"])
    lines += _approximate(summary["neighbours"])
    lines += not_shown(summary["notes"])
    if source.job is not None:
        lines.append(_used(source, summary))
        lines += skipped_lines(source.job.report.skipped)
    if args.output is not None:
        lines.append(f"{counts['top_k']} candidate matches a query: {args.output}")
    if args.sheet is not None:
        lines.append(f"sheet: {args.sheet}")
    if args.report is not None:
        lines.append(f"report: {args.report}")
    return lines


def _approximate(neighbours: dict[str, Any] | None) -> list[str]:
    """Say how well neighbours were found, unless all were."""
    if neighbours is None or neighbours["method"] == "exact":
        return []
    cells = f"{neighbours['nprobe']} of {neighbours['nlist']} cells"
    slow = 10 * neighbours["nprobe"] > neighbours["nlist"]
    advice = "; --neighbours exact is hardly slower" if slow else ""
    return [f"neighbours: {100 * neighbours['recall']:.2f} % found (ivf, {cells} a row){advice}"]


def _used(source: RankedSource, summary: dict[str, Any]) -> str:
    """Say what was taken from the job folder."""
    counts = summary["counts"]
    parts = [
        f"mu of {counts[key]} candidates {of}"
        for key, of in (("mu_candidates", "a query"), ("gallery_mu_candidates", "a gallery image"))
        if counts[key]
    ]
    return f"used: {', '.join([*parts, f'alignment {source.alignment.asked}'])}"


def compared(
    name: str, metrics: dict[str, Metrics | None], alignment: dict[str, Any]
) -> dict[str, Metrics]:
    """Return the metrics of each ranking by its name in tables; none without labels."""
    before, aligned, after = (metrics[name] for name in ("before", "aligned", "after"))
    without = metrics["without_mu"]
    if before is None or after is None:
        return {}
    rows = {"encoder": before}
    if aligned is not None:
        rows[f"aligned ({alignment['level']}, {alignment['dims']})"] = aligned
    if without is not None and without not in rows.values():
        rows[name.split(" + ")[0]] = without
    if name != "none":
        rows[name] = after
    return rows


def _comparison(
    name: str, metrics: dict[str, Metrics | None], alignment: dict[str, Any]
) -> list[str]:
    rows = compared(name, metrics, alignment)
    before, after, without = (metrics[name] for name in ("before", "after", "without_mu"))
    assert before is not None and after is not None  # noqa: S101, PT018  there were labels
    lines = table(rows, _COLUMNS)
    if len(rows) == 1:
        return lines
    width = max(map(len, rows))
    lines.append(f"{'gain':<{width}}{gain(before, after, _COLUMNS)}")
    if without is not None:
        lines.append(f"{'by mu':<{width}}{gain(without, after, _COLUMNS)}")
    return lines

"""What `murank rerank` prints: counts, metrics before and after, where the result is."""

import argparse
from typing import Any

from murank.cli.sources import method_name
from murank.cli.table import gain, table
from murank.rerank.metrics import Metrics

_NAMED = 3  # skipped images, in the report
_COLUMNS = ("mAP", "rank-1", "rank-5", "rank-10")


def report(args: argparse.Namespace, summary: dict[str, Any]) -> list[str]:
    """Return the lines."""
    counts, metrics = summary["counts"], summary["metrics"]
    head = f"{counts['num_query']} queries, {counts['num_gallery']} gallery images"
    after = metrics["after"]
    if after is None:
        lines = [head, summary["not_evaluated"]]
    else:
        protocol = summary["protocol"]["protocol"]
        lines = [f"{head}, {after['num_valid']} queries evaluated ({protocol})"]
        lines += _comparison(args, metrics, summary["alignment"])
    if summary["alignment"]["level"] == "off" and summary["alignment"]["note"] is not None:
        lines.append(summary["alignment"]["note"])
    lines += summary["notes"]
    skipped = len(summary.get("skipped", ()))
    if skipped:
        where = "with --json" if args.output is None else "in summary.json"
        lines.append(f"{skipped} image{'s' * (skipped > 1)} skipped (listed {where}):")
        lines += [f"  {_why(one)}" for one in summary["skipped"][:_NAMED]]
        lines += ["  ..."] * (skipped > _NAMED)
    if args.output is not None:
        lines.append(f"{counts['top_k']} candidate matches a query: {args.output}")
    if args.sheet is not None:
        lines.append(f"sheet: {args.sheet}")
    return lines


def _why(skipped: dict[str, Any]) -> str:
    path, reason = str(skipped["path"]), str(skipped["reason"])
    return reason if path in reason else f"{path}: {reason}"


def _comparison(
    args: argparse.Namespace, metrics: dict[str, Metrics | None], alignment: dict[str, Any]
) -> list[str]:
    before, aligned, after = (metrics[name] for name in ("before", "aligned", "after"))
    assert before is not None and after is not None  # noqa: S101, PT018  there were labels
    rows = {"encoder": before}
    if aligned is not None:
        rows[f"aligned ({alignment['level']}, {alignment['dims']})"] = aligned
    if args.method != "none":
        rows[method_name(args)] = after
    lines = table(rows, _COLUMNS)
    if len(rows) == 1:
        return lines
    return [*lines, f"{'gain':<{max(map(len, rows))}}{gain(before, after, _COLUMNS)}"]

"""What `murank rerank` prints: counts, metrics before and after, where the result is."""

import argparse
from typing import Any

from murank._metrics import Metrics
from murank.cli._sources import method_name
from murank.cli._table import gain, table

_NAMED = 3  # skipped images, in the report
_COLUMNS = ("mAP", "rank-1", "rank-5", "rank-10")


def report(args: argparse.Namespace, summary: dict[str, Any]) -> list[str]:
    """Return the lines."""
    counts, metrics = summary["counts"], summary["metrics"]
    head = f"{counts['num_query']} queries, {counts['num_gallery']} gallery images"
    before, after = metrics["before"], metrics["after"]
    if after is None:
        lines = [head, summary["not_evaluated"]]
    else:
        protocol = summary["protocol"]["protocol"]
        lines = [f"{head}, {after['num_valid']} queries evaluated ({protocol})"]
        lines += _comparison(args, before, after)
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


def _comparison(args: argparse.Namespace, before: Metrics, after: Metrics) -> list[str]:
    if args.method == "none":
        return table({"encoder": before}, _COLUMNS)
    name = method_name(args)
    rows = table({"encoder": before, name: after}, _COLUMNS)
    width = max(len(name), len("encoder"))
    return [*rows, f"{'gain':<{width}}{gain(before, after, _COLUMNS)}"]

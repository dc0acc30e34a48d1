"""The page of `murank rerank --report`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.cli.ranked_source import RankedSource
from murank.cli.rerank_report import compared, method_name
from murank.cli.rerank_sheet import read_as
from murank.rerank.features import check_file
from murank.rerank.pipeline import Outcome
from murank.rerank.verdicts import verdicts_of


def add_report(group: Any) -> None:
    """Add the options of the page."""
    group.add_argument("--report", metavar="FILE", help="one page of HTML on all of it, to read")
    group.add_argument("--no-pictures", action="store_true", help="leave images out of --report")


def check_report(args: argparse.Namespace) -> None:
    """Raise UserError if --report may not be written there."""
    if args.report is None:
        if args.no_pictures:
            raise UsageError("--no-pictures needs --report")
        return
    if Path(args.report).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report writes HTML: name it so, not {args.report}")
    check_file(Path(args.report), overwrite=args.overwrite)


def shows_images(args: argparse.Namespace) -> bool:
    """Whether the page has pictures."""
    return args.report is not None and not args.no_pictures


def write_report_of(
    args: argparse.Namespace,
    outcome: Outcome,
    source: RankedSource,
    summary: dict[str, Any],
    protocol: Mapping[str, Any],
) -> None:
    """Write --report."""
    from murank.report import Pictures, ReportFacts, changed_rows, write_report
    from murank.sheet import count_changes

    name, before, after = method_name(args.method, source), outcome.before, outcome.ranking
    assert before is not None  # noqa: S101  it was kept
    has_labels = bool(outcome.curves)
    pictures = changes = None
    if shows_images(args):
        changes = changed_rows(before, after, source.mu, protocol=protocol)
        pictures = Pictures(source.image_root, **read_as(args, source))
    shown = {"before": "encoder", "aligned": "aligned"}
    if args.method != "none":
        shown["after"] = name
    write_report(
        args.report,
        ReportFacts(
            name, summary, compared(name, summary["metrics"], summary["alignment"]),
            {shown[key]: curve for key, curve in outcome.curves.items() if key in shown},
            source.mu, verdicts_of(after.labels, protocol) if has_labels else None,
            None if source.job is None else source.job.report.to_json(), changes,
            count_changes(before, after, protocol=protocol), pictures,
        ),
    )  # fmt: skip

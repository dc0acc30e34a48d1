"""The contact sheet of `murank rerank`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, UsageError
from murank.cli.ranked_source import RankedSource
from murank.cli.reading_options import image_reading_of
from murank.cli.rerank_report import method_name
from murank.rerank.features import check_file, check_has_paths
from murank.rerank.pipeline import Outcome
from murank.rerank.verdicts import verdicts_of


def check_sheet(args: argparse.Namespace) -> None:
    """Raise OutputError if --sheet may not be written there."""
    if args.sheet is not None:
        if Path(args.sheet).suffix.lower() != ".png":
            raise UsageError(f"--sheet writes a PNG: name it so, not {args.sheet}")
        check_file(Path(args.sheet), overwrite=args.overwrite)


def check_images(source: RankedSource, flag: str = "--sheet") -> None:
    """Raise InputError if there is nothing to show there."""
    remedy = ", or pass --no-pictures" if flag == "--report" else ""
    why = f"{flag} shows the images{remedy}"
    check_has_paths(source.features, source.summary["inputs"]["source"], why)
    root, paths = source.image_root, source.features.query.paths
    if any((root / str(path)).is_file() for path in paths):
        return
    raise InputError(
        f"{flag} shows the images, but none of the queries is there, as {root / paths[0]}"
        f"; --image-root names the folder that paths start at{remedy}"
    )


def write_sheet_of(
    args: argparse.Namespace, outcome: Outcome, source: RankedSource, protocol: Mapping[str, Any]
) -> None:
    """Draw --sheet."""
    from murank.sheet import choose_queries, count_changes, draw_sheet, rows_of, write_sheet

    before, after = outcome.before, outcome.ranking
    assert before is not None  # noqa: S101  it was kept
    queries = choose_queries(before, after, protocol=protocol)
    notes = count_changes(before, after, protocol=protocol)
    if len(queries) < len(after.indices):
        has_labels = verdicts_of(after.labels, protocol) is not None
        chosen = "the largest gains and losses in turn" if has_labels else "the first"
        notes.append(f"Shown are {len(queries)} of {len(after.indices):,} queries: {chosen}.")
    name = method_name(args.method, source)
    sheet = draw_sheet(
        rows_of(before, after, source.mu, queries, protocol=protocol),
        before="encoder",
        after=name,
        title=f"{name}: candidate matches",
        notes=notes,
        root=source.image_root,
        **read_as(args, source),
    )
    write_sheet(args.sheet, sheet)


def read_as(args: argparse.Namespace, source: RankedSource) -> dict[str, Any]:
    """Return how images are read, as keyword arguments: as the job did, but for what was given."""
    bits = None if source.job is None else source.job.report.bits
    return ({} if bits is None else {"bits": bits}) | image_reading_of(args)

"""The contact sheet of `murank rerank`."""

import argparse
from pathlib import Path

from murank._exceptions import InputError, UsageError
from murank.cli.reading_options import image_reading_of
from murank.cli.sources import image_root, method_name
from murank.rerank.features import FeatureSet, check_file
from murank.rerank.mu import MuDistances
from murank.rerank.pipeline import Outcome


def check_sheet(args: argparse.Namespace) -> None:
    """Raise OutputError if --sheet may not be written there."""
    if args.sheet is not None:
        if Path(args.sheet).suffix.lower() != ".png":
            raise UsageError(f"--sheet writes a PNG: name it so, not {args.sheet}")
        check_file(Path(args.sheet), overwrite=args.overwrite)


def check_images(args: argparse.Namespace, features: FeatureSet) -> None:
    """Raise InputError if there is nothing to show on --sheet."""
    root = image_root(args)
    if args.sheet is None or any((root / str(path)).is_file() for path in features.query.paths):
        return
    raise InputError(
        f"--sheet shows the images, but none of the queries is there, as {root / features.paths[0]}"
        "; --image-root names the folder that paths start at"
    )


def write_sheet_of(args: argparse.Namespace, outcome: Outcome, mu: MuDistances | None) -> None:
    """Draw --sheet, if it was asked for."""
    if args.sheet is None or outcome.before is None:
        return
    from murank.sheet import choose_queries, count_changes, draw_sheet, rows_of, write_sheet

    before, after = outcome.before, outcome.ranking
    queries = choose_queries(before, after, drop_junk=args.drop_junk)
    notes = count_changes(before, after, drop_junk=args.drop_junk)
    if len(queries) < len(after.indices):
        chosen = "the first" if after.labels is None else "the largest gains and losses in turn"
        notes.append(f"Shown are {len(queries)} of {len(after.indices):,} queries: {chosen}.")
    sheet = draw_sheet(
        rows_of(before, after, mu, queries, drop_junk=args.drop_junk),
        before="encoder",
        after=method_name(args),
        title=f"{method_name(args)}: candidate matches",
        notes=notes,
        root=image_root(args),
        **image_reading_of(args),
    )
    write_sheet(args.sheet, sheet)

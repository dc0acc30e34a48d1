"""Mine hard pairs: for every image its least similar of the same person, most similar of others."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from murank import UsageError
from murank.cli.alignment_options import add_alignment, alignment_of
from murank.cli.output import notes, say, say_json
from murank.cli.progress import ProgressLine
from murank.cli.reading_options import (
    add_reading_options,
    check_reading,
    image_reading_of,
    reading_of,
)
from murank.rerank.alignment import Alignment, fit
from murank.rerank.features import check_file
from murank_export.adapt.mining_settings import MiningSettings

if TYPE_CHECKING:
    from murank_export.adapt.mining_source import Labelled

_OURS = MiningSettings()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `murank adapt mine`."""
    _add_source(parser)
    _add_choice(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="folder for train.json, val.json and mining.json",
    )  # fmt: skip
    group.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="picture of some queries with their pairs"
    )
    group.add_argument("--overwrite", action="store_true", help="replace the files of an old run")
    group.add_argument("--json", action="store_true", help="print mining.json, no table")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _add_source(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("source: features, or images and an engine")
    group.add_argument(
        "--features", type=Path, metavar="F.npz", help="with pids; all rows, gallery or not"
    )
    group.add_argument("--engine", type=Path, metavar="DIR", help="embeds the images")
    group.add_argument(
        "--images", type=Path, nargs="+", metavar="DIR|CSV",
        help="folders of images in Market-1501 names, or lists (path,pid,camid)",
    )  # fmt: skip
    group.add_argument(
        "--image-root", type=Path, metavar="DIR",
        help="where paths in F.npz start, for --sheet (the current folder)",
    )  # fmt: skip
    add_reading_options(group)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pairs")
    group.add_argument(
        "--k", type=int, default=_OURS.k, metavar="N",
        help=f"candidates of each kind a query, at most ({_OURS.k}: ours, the paper names none)",
    )  # fmt: skip
    group.add_argument(
        "--val-ratio", type=float, default=_OURS.val_ratio, metavar="X",
        help="share of the people who validate; no pair has one of each side "
        f"({_OURS.val_ratio:g})",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=_OURS.seed, help=f"of all draws ({_OURS.seed})")
    group.add_argument(
        "--cross-camera", action="store_true", help="positives of other cameras only"
    )
    group.add_argument(
        "--random", action="store_true",
        help="write random_train.json and random_val.json, too: k others a query as they come, "
        "the baseline",
    )  # fmt: skip

    add_alignment(parser)


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    asked = alignment_of(args)
    settings = MiningSettings(args.k, args.val_ratio, args.seed, args.cross_camera, args.random)
    _check_usage(args)
    from murank_export.adapt.mining import mine_pairs
    from murank_export.adapt.mining_record import mining_record, summary
    from murank_export.adapt.mining_sheet import check_images, draw_pairs
    from murank_export.adapt.pairs_folder import check_folder, write_folder

    check_folder(args.output, overwrite=args.overwrite)
    if args.sheet is not None:
        check_file(args.sheet, overwrite=args.overwrite)
    with ProgressLine(quiet=args.quiet) as line:
        labelled = _labelled(args, asked, line)
        root = args.image_root or Path()
        if args.sheet is not None:
            check_images(labelled.paths, root)
        fitted = fit(
            labelled.features, labelled.camids, asked, encoder_sha256=labelled.encoder_sha256,
            progress=line.part("align"),
        )  # fmt: skip
        rows = fitted.apply(labelled.features, labelled.camids)
        mined = mine_pairs(
            rows, labelled.pids, labelled.camids, settings, progress=line.part("mine")
        )
    record = {
        **mining_record(labelled, mined, settings),
        "alignment": fitted.to_json(asked, int(rows.shape[1])), "notes": notes(),
    }  # fmt: skip
    named = {name: pairs.named(labelled.paths) for name, pairs in mined.parts.items()}
    write_folder(args.output, named, record)
    if args.sheet is not None:
        from murank.sheet import write_sheet

        sheet = draw_pairs(mined.parts["train"], labelled.paths, root, **image_reading_of(args))
        write_sheet(args.sheet, sheet)
    if args.json:
        say_json(record)
    else:
        say(*summary(record, args.output), *fitted.why_not)
    return 0


def _labelled(args: argparse.Namespace, asked: Alignment, line: ProgressLine) -> "Labelled":
    from murank.jobs import LazyEngine
    from murank_export.adapt.mining_source import from_features, from_images

    if args.features is not None:
        return from_features(args.features, line)
    engine = LazyEngine(args.engine, ["encoder"], reading_of(args))
    return from_images(args.images, engine, line, asked)


def _check_usage(args: argparse.Namespace) -> None:
    images = args.images is not None
    if (args.features is None) == (args.engine is None and not images):
        raise UsageError("one source is needed: --features, or --engine and --images")
    if images != (args.engine is not None):
        raise UsageError("--engine and --images need each other")
    if args.image_root is not None and (args.sheet is None or args.features is None):
        raise UsageError("--image-root is of use with --features and --sheet only")
    check_reading(args, reads=images or args.sheet is not None, by="--images or --sheet")
    if args.sheet is not None and args.sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet writes a PNG: name it so, not {args.sheet}")

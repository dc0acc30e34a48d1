"""Options of camera alignment, the same for every verb that compares features."""

import argparse
from typing import Any

from murank._alignment import ASKED, ENOUGH_ROWS, Alignment
from murank._exceptions import UsageError
from murank.cli._parser import positive


def add_alignment(parser: argparse.ArgumentParser) -> None:
    """Add them; `alignment_of` reads them."""
    group = parser.add_argument_group(
        "camera alignment (what a camera adds to its images is taken out of the features; fitted "
        "on the gallery and its camids, without pids)"
    )
    group.add_argument(
        "--align-cameras", choices=ASKED, default="auto",
        help="pairs: means of cameras, and directions in which one person differs between them; "
        f"mean: the former; auto: pairs where two cameras have {ENOUGH_ROWS} gallery images; off: "
        "as published figures are",
    )  # fmt: skip
    group.add_argument(
        "--align-dims", type=_dims, metavar="N|all",
        help="directions kept (with pairs a quarter, at least 128)",
    )  # fmt: skip


def alignment_of(args: argparse.Namespace) -> Alignment:
    """Return what is asked for; UsageError if a part has no effect."""
    if args.align_dims is not None and args.align_cameras == "off":
        raise UsageError("--align-dims has no effect with --align-cameras off")
    return Alignment(args.align_cameras, "auto" if args.align_dims is None else args.align_dims)


def _dims(text: str) -> Any:
    return text if text == "all" else positive(text)

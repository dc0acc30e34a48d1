"""Options of camera alignment, the same for every verb that compares features."""

import argparse
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.cli.parser import positive
from murank.datasets.labels import Ids
from murank.folder.contents import EngineFiles
from murank.folder.graph_hash import encoder_sha256
from murank.folder.manifest import Manifest
from murank.rerank.alignment import ASKED, ENOUGH_ROWS, Alignment, load_alignment

_NAMES = ("align_cameras", "align_dims", "alignment")


def add_alignment(parser: argparse.ArgumentParser) -> None:
    """Add them; `alignment_of` reads them."""
    group = parser.add_argument_group(
        "camera alignment (takes out of features what a camera adds; fitted without pids)"
    )
    group.add_argument(
        "--align-cameras", choices=ASKED, metavar="LEVEL",
        help="pairs, mean, off (as published figures are), or auto (default): pairs where two "
        f"cameras have {ENOUGH_ROWS} gallery images",
    )  # fmt: skip
    group.add_argument(
        "--align-dims", type=directions, metavar="N|all",
        help="directions kept (with pairs a quarter, at least 128)",
    )  # fmt: skip
    group.add_argument(
        "--alignment", type=Path, metavar="A.npz", help="what murank align fitted, no fit here"
    )


def alignment_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags that were given."""
    return [f"--{name.replace('_', '-')}" for name in _NAMES if getattr(args, name) is not None]


def alignment_of(args: argparse.Namespace) -> Alignment:
    """Return what is asked for; UsageError if a part has no effect."""
    if args.alignment is not None:
        others = [flag for flag in alignment_flags(args) if flag != "--alignment"]
        if others:
            raise UsageError(f"{others[0]} is of a fit, and --alignment is fitted: leave one out")
        return Alignment(given=load_alignment(args.alignment))
    if args.align_dims is not None and args.align_cameras == "off":
        raise UsageError("--align-dims has no effect with --align-cameras off")
    return Alignment(args.align_cameras or "auto", args.align_dims or "auto")


def check_for_engine(
    asked: Alignment, folder: Path, manifest: Manifest, camids: Ids | None
) -> None:
    """Raise what a fit to features of an engine's encoder would, before it is loaded."""
    assert manifest.encoder is not None  # noqa: S101
    made_by = None if asked.given is None else encoder_sha256(EngineFiles(folder, manifest))
    asked.check(dim=manifest.encoder.dim, camids=camids, encoder_sha256=made_by)


def directions(text: str) -> Any:
    """Parse a number of directions, or all of them."""
    try:
        return text if text == "all" else positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or 'all'") from error

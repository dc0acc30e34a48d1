"""`murank gallery relate`: the MLLM asked about tracks of a gallery among themselves."""

import argparse

from murank.cli.engine_options import add_rare_running_options, add_running_options, running_of
from murank.cli.gallery_options import add_file, add_json
from murank.cli.output import say, say_json
from murank.cli.parser import positive
from murank.cli.progress import ProgressLine
from murank.engine.engine import Engine
from murank.folder.integrity import read_pinned
from murank.gallery import Gallery


def _options(parser: argparse.ArgumentParser) -> None:
    add_file(parser, engine=True)
    parser.add_argument(
        "--budget-pairs", type=positive, metavar="N", help="asked about at most (all that are due)"
    )
    parser.add_argument("--deadline-ms", type=float, metavar="X", help="the time that there is")
    add_running_options(parser.add_argument_group("engine"))
    add_rare_running_options(parser.add_argument_group("rarely needed"))
    add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


VERBS = {"relate": ("ask the MLLM about new tracks and their nearest, in idle time", _options)}


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    _, sha256 = read_pinned(args.engine, args.sha256)
    engine = Engine.from_pretrained(args.engine, sha256=sha256, **running_of(args))
    opened = Gallery.open(args.file, engine)
    with opened as gallery, ProgressLine(quiet=args.quiet) as line:
        progress = line.part("relate")
        related = gallery.relate(
            budget_pairs=args.budget_pairs, deadline_ms=args.deadline_ms,
            progress=lambda *done: progress("tracks", *done),
        )  # fmt: skip
    if args.json:
        say_json({"schema_version": 1, **vars(related)})
    else:
        say(
            f"{related.pairs} pairs asked, {related.tracks} tracks done, {related.tracks_left} left"
        )
    return 0

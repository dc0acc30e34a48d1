"""`murank gallery search`: the tracks of a gallery that may show the person of a query."""

import argparse
from datetime import datetime, timezone
from typing import Any

from murank._exceptions import UsageError
from murank.cli.engine_options import add_rare_running_options, add_running_options, running_of
from murank.cli.gallery_options import MOMENT, add_file, add_json, attribute, cameras, moment
from murank.cli.output import say, say_json
from murank.cli.parser import not_negative, positive
from murank.engine.deadline import IN_TIME_BATCH
from murank.engine.engine import Engine
from murank.folder.integrity import read_pinned
from murank.gallery import Gallery, GalleryMatch, GallerySearchResult
from murank.gallery.gallery_query import GALLERY_METHODS, SHORTLIST

_PRACTICE = 4  # searches: the first loads kernels, the others teach how long steps take


def _options(parser: argparse.ArgumentParser) -> None:
    add_file(parser, engine=True)
    parser.add_argument(
        "--query", nargs="+", metavar="IMG", help="crops of one person; the MLLM is shown the first"
    )
    parser.add_argument("--id", metavar="ID", help="instead: a stored shot")
    parser.add_argument("--camera", type=not_negative, metavar="N", help="of --query (unknown)")
    group = parser.add_argument_group("filters")
    group.add_argument("--cameras", type=cameras, metavar="N,N", help="by one of which it was seen")
    group.add_argument("--since", type=moment, metavar="T", help=MOMENT)
    group.add_argument("--until", type=moment, metavar="T")
    group.add_argument("--exclude-track", action="append", default=[], metavar="NAME")
    group.add_argument(
        "--attribute", type=attribute, action="append", default=[], metavar="NAME=VALUE"
    )
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method", choices=GALLERY_METHODS, default="ca-jaccard", help="(ca-jaccard)"
    )
    group.add_argument(
        "--candidates", type=not_negative, default=20, metavar="K",
        help="nearest tracks that the MLLM is asked about (20)",
    )  # fmt: skip
    group.add_argument(
        "--shortlist", type=not_negative, default=SHORTLIST, metavar="M",
        help=f"nearest tracks among which neighbours are looked for ({SHORTLIST}); 0: all",
    )  # fmt: skip
    group.add_argument("--deadline-ms", type=float, metavar="X", help="the query's time")
    add_running_options(parser.add_argument_group("engine"))
    add_rare_running_options(parser.add_argument_group("rarely needed"))
    parser.add_argument("--top-k", type=positive, default=10, metavar="N", help="shown (10)")
    add_json(parser)


VERBS = {"search": ("the tracks that may show the person of a query: candidate matches", _options)}


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    if (args.query is None) == (args.id is None):
        raise UsageError("name --query or --id, one of them")
    _, sha256 = read_pinned(args.engine, args.sha256)
    engine = Engine.from_pretrained(args.engine, sha256=sha256, **running_of(args))
    with Gallery.open(args.file, engine, mode="r") as gallery:
        if args.deadline_ms is not None:  # it is for the query, not for a process's first runs
            for _ in range(_PRACTICE):
                _search(
                    gallery, args, candidates=min(args.candidates, IN_TIME_BATCH), deadline_ms=None
                )
        result = _search(gallery, args, candidates=args.candidates, deadline_ms=args.deadline_ms)
    if args.json:
        say_json(_as_json(result))
    else:
        say(*_lines(result))
    return 0


def _search(gallery: Gallery, args: argparse.Namespace, **how: Any) -> GallerySearchResult:
    return gallery.search(
        args.query, id=args.id, camera=args.camera, cameras=args.cameras, since=args.since,
        until=args.until, exclude_tracks=args.exclude_track, method=args.method,
        attributes=dict(args.attribute), top_k=args.top_k, shortlist=args.shortlist or None, **how,
    )  # fmt: skip


def _as_json(result: GallerySearchResult) -> dict[str, Any]:
    return {
        "schema_version": 1, "matches": [vars(one) for one in result.matches],
        "scored": result.scored, "candidates": result.candidates, "partial": result.partial,
        "generation": result.generation, "pairs": result.pairs, "seconds": dict(result.seconds),
    }  # fmt: skip


def _lines(result: GallerySearchResult) -> list[str]:
    lines = ["rank  distance  encoder     mu  camera  last seen             track, id"]
    lines += [_line(one) for one in result.matches]
    spent = 1000 * sum(result.seconds.values())
    asked = f"{result.scored} of {result.candidates} candidates asked about"
    return [*lines, f"{asked}; {spent:.0f} ms; candidate matches: a person decides"]


def _line(one: GalleryMatch) -> str:
    mu = "     -" if one.mu is None else f"{one.mu:6.3f}"
    when = datetime.fromtimestamp(one.last, timezone.utc).isoformat(timespec="seconds")
    name = one.id if one.track is None else f"{one.track}, {one.id}"
    return (
        f"{one.rank:4}  {one.distance:8.4f}  {one.encoder_distance:7.4f} {mu}  {one.camera:6}  "
        f"{when[:19]}Z  {name}"
    )

"""`murank gallery add`: crops into a gallery's file."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, UsageError
from murank.cli.engine_options import add_rare_running_options, add_running_options, running_of
from murank.cli.gallery_options import (
    MOMENT,
    add_file,
    add_json,
    attribute,
    attribute_value,
    moment,
)
from murank.cli.in_flags import reason_in_flags
from murank.cli.output import say, say_json
from murank.cli.parser import not_negative, positive
from murank.cli.progress import ProgressLine
from murank.engine.engine import Engine
from murank.files.stand_in import misread
from murank.files.text_table import text_rows
from murank.files.urls import is_url, listed_url, refuse_url
from murank.folder.integrity import read_pinned
from murank.gallery import AddResult, Gallery
from murank.gallery.gallery_settings import WhenFull
from murank.gallery.ready_shots import KEEPS

_COLUMNS = ("path", "camera", "time", "track", "id", "subject")
_AT_ONCE = 64


def _options(parser: argparse.ArgumentParser) -> None:
    add_file(parser, engine=True)
    parser.add_argument("images", nargs="*", metavar="IMG", help="crops")
    parser.add_argument(
        "--items", type=Path, metavar="CSV",
        help="instead: a table with the columns path, camera, time and, where known, track, id, "
        "subject; further columns are attributes. Paths start at its folder. Rows of an id that is "
        "stored are known and passed over; without ids, rows added twice are there twice",
    )  # fmt: skip
    parser.add_argument("--camera", type=not_negative, metavar="N", help="of all images")
    parser.add_argument("--time", type=moment, metavar="T", help=MOMENT)
    parser.add_argument("--track", metavar="NAME", help="that all images belong to")
    parser.add_argument("--subject", metavar="NAME", help="to erase by")
    parser.add_argument(
        "--attribute", type=attribute, action="append", default=[], metavar="NAME=VALUE",
        help="to filter by; may be repeated",
    )  # fmt: skip
    group = parser.add_argument_group("what is kept")
    group.add_argument("--keep", choices=KEEPS, default="crops", help="of a track (crops)")
    group.add_argument("--max-rows", type=positive, metavar="N", help="in the gallery, at most")
    group.add_argument("--drop-oldest", action="store_true", help="of a full one, refuse nothing")
    add_running_options(parser.add_argument_group("engine"))
    add_rare_running_options(parser.add_argument_group("rarely needed"))
    add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _reembed(parser: argparse.ArgumentParser) -> None:
    add_file(parser, engine=True)
    add_running_options(parser.add_argument_group("engine"))
    add_rare_running_options(parser.add_argument_group("rarely needed"))
    add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


VERBS = {
    "add": ("crops, into a gallery; the file is made where there is none", _options),
    "reembed": ("features of a new encoder, from the crops that a gallery keeps", _reembed),
}


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    if args.verb == "reembed":
        return _embedded_again(args)
    items = _items(args)
    if args.drop_oldest and args.max_rows is None:
        raise UsageError("--drop-oldest needs --max-rows")
    _, sha256 = read_pinned(args.engine, args.sha256)
    engine = Engine.from_pretrained(args.engine, sha256=sha256, **running_of(args))
    results: list[AddResult] = []
    when_full: WhenFull = "drop-oldest" if args.drop_oldest else "refuse"
    opened = Gallery.open(
        args.file, engine, keep=args.keep, max_rows=args.max_rows, when_full=when_full
    )
    with opened as gallery, ProgressLine(quiet=args.quiet) as line:
        progress = line.part("add")
        for start in range(0, len(items), _AT_ONCE):
            results += _added(gallery, items[start : start + _AT_ONCE])
            progress("crops", len(results), len(items))
    return _told(args, items, results)


def _embedded_again(args: argparse.Namespace) -> int:
    _, sha256 = read_pinned(args.engine, args.sha256)
    engine = Engine.from_pretrained(args.engine, sha256=sha256, **running_of(args))
    with ProgressLine(quiet=args.quiet) as line:
        progress = line.part("embed")
        with Gallery.open(args.file, None) as gallery:
            count = gallery.reembed(engine, progress=lambda *done: progress("crops", *done))
    if args.json:
        say_json({"schema_version": 1, "shots": count})
    else:
        say(f"{count} shots embedded")
    return 0


def _added(gallery: Gallery, items: Sequence[dict[str, Any]]) -> list[AddResult]:
    names = ("camera", "time", "track", "id", "subject", "attributes")
    said = {name: [item[name] for item in items] for name in names}
    return gallery.add([item["path"] for item in items], **said)


def _items(args: argparse.Namespace) -> list[dict[str, Any]]:
    if (args.items is None) == (not args.images):
        raise UsageError("name images or --items, one of them")
    if args.items is not None:
        said = ("camera", "time", "track", "subject")
        given = [f"--{name}" for name in said if getattr(args, name) is not None]
        if given or args.attribute:
            raise UsageError(f"{(given or ['--attribute'])[0]} is a column of --items")
        return _table(args.items)
    if args.camera is None or args.time is None:
        raise UsageError("images need --camera and --time")
    same = {
        "camera": args.camera, "time": args.time, "track": args.track, "id": None,
        "subject": args.subject, "attributes": dict(args.attribute),
    }  # fmt: skip
    for path in args.images:
        refuse_url(path)
    return [{"path": path, **same} for path in args.images]


def _table(file: Path) -> list[dict[str, Any]]:
    try:
        (_, columns), *rows = [*text_rows(file)] or [(1, [])]
    except OSError as error:
        raise misread(file, f": {error.strerror or error}") from error
    missing = [name for name in _COLUMNS[:3] if name not in columns]
    if missing:
        raise InputError(f"{file} has no column {missing[0]}: the first line names the columns")
    return [
        _row(dict(zip(columns, cells, strict=True)), f"{file}, line {number}", file)
        for number, cells in rows
    ]


def _row(row: dict[str, str], at: str, file: Path) -> dict[str, Any]:
    try:
        item = {"camera": int(row["camera"]), "time": moment(row["time"])}
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise InputError(f"{at}: camera or time: {error}") from error
    if is_url(row["path"]):
        raise listed_url(at, row["path"])
    more = {
        name: attribute_value(value)
        for name, value in row.items()
        if name not in _COLUMNS and value
    }
    names = {name: row.get(name) or None for name in ("track", "id", "subject")}
    return {"path": str(file.parent / row["path"]), **item, **names, "attributes": more}


def _told(
    args: argparse.Namespace, items: Sequence[dict[str, Any]], results: Sequence[AddResult]
) -> int:
    counts = Counter(one.status for one in results)
    refused = [
        {"path": item["path"], "reason": reason_in_flags(one.reason or "")}
        for item, one in zip(items, results, strict=True)
        if one.status == "refused"
    ]
    if args.json:
        added = [{"id": one.id, "status": one.status} for one in results]
        say_json({"schema_version": 1, "items": added, "refused": refused})
    else:
        say(*(f"refused: {one['reason']}" for one in refused))
        say(f"added {counts['added']}, known {counts['known']}, refused {counts['refused']}")
    return InputError.exit_code if counts["refused"] == len(results) else 0

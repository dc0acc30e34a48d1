"""`murank cache`: what a --cache-dir holds of images, and its erasure."""

import argparse
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, days
from murank.engine.cache_usage import CacheUsage, cache_usage, clear_usage, folders_of

_DAY = 86400.0


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank cache",
        description="Show (stat) or erase (clear) the vision tokens that --cache-dir keeps, "
        "which are biometric data: of all engines, also of former ones, or of one. Files of "
        "others in the folder are not touched.",
    )
    result.add_argument("action", choices=("stat", "clear"))
    result.add_argument("folder", metavar="FOLDER", type=Path, help="what --cache-dir named")
    result.add_argument("--engine", metavar="E", type=Path, help="of this engine only")
    result.add_argument(
        "--older-than", type=days, metavar="DAYS", help="only files written before [clear]"
    )
    result.add_argument("--json", action="store_true", help="print JSON")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    if args.action == "stat" and args.older_than is not None:
        raise UsageError("--older-than is of clear")
    only = None if args.engine is None else folders_of(args.engine)
    usages = cache_usage(args.folder, only)
    if args.action == "clear":
        usages = clear_usage(args.folder, usages, (args.older_than or 0) * _DAY)
    if args.json:
        say_json(_as_json(args, usages))
    else:
        say(*_lines(args, usages))
    return 0


def _as_json(args: argparse.Namespace, usages: Sequence[CacheUsage]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "folder": str(args.folder),
        "engine": None if args.engine is None else str(args.engine),
        "deleted": args.action == "clear",
        "files": sum(len(one.files) for one in usages),
        "bytes": sum(one.bytes for one in usages),
        "parts": [
            {
                "name": one.name, "files": len(one.files), "bytes": one.bytes, "aside": one.aside,
                "oldest": _time(one.oldest), "newest": _time(one.newest),
            }
            for one in usages
        ],
    }  # fmt: skip


def _lines(args: argparse.Namespace, usages: Sequence[CacheUsage]) -> Iterator[str]:
    for one in usages:
        line = f"{one.name}  {len(one.files)} files, {one.bytes / (1 << 20):.1f} MiB"
        if one.files:
            line += f", written {_time(one.oldest)} to {_time(one.newest)}"
        if one.aside:
            line += f", {one.aside} of them aside (being written, or of killed processes)"
        yield line
    files, size = sum(len(one.files) for one in usages), sum(one.bytes for one in usages)
    what = "deleted" if args.action == "clear" else "in all"
    yield f"{what}: {files} files, {size / (1 << 20):.1f} MiB"


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")

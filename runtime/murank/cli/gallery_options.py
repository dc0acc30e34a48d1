"""Options that the verbs of `murank gallery` share, and how times and attributes are written."""

import argparse
import contextlib
import time
from datetime import datetime
from pathlib import Path

from murank.gallery.shot_records import AttributeValue

MOMENT = "seconds, ISO 8601 with zone, now, or 2h: ago"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # seconds


def add_file(parser: argparse.ArgumentParser, *, engine: bool = False) -> None:
    """Add the gallery's file, and the engine where one is needed."""
    if engine:
        parser.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    parser.add_argument("file", metavar="FILE", type=Path, help="of the gallery")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def moment(text: str) -> float:
    """Parse seconds since the epoch, a date and time with its zone, now, or how long ago: 2h."""
    if text == "now":
        return time.time()
    if text[-1:] in _UNITS:
        with contextlib.suppress(ValueError):
            return time.time() - float(text[:-1]) * _UNITS[text[-1]]
    with contextlib.suppress(ValueError):
        return float(text)
    with contextlib.suppress(ValueError):
        given = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        if given.tzinfo is not None:
            return given.timestamp()
    raise argparse.ArgumentTypeError(
        "must be seconds since the epoch, like 2026-11-29T18:00:00+01:00, or ago, like 2h, got "
        f"{text!r}"
    )


def cameras(text: str) -> list[int]:
    """Parse numbers of cameras with commas between."""
    with contextlib.suppress(ValueError):
        if min(found := [int(one) for one in text.split(",")]) >= 0:
            return found
    raise argparse.ArgumentTypeError(f"must be numbers of cameras like 3,4,5, got {text!r}")


def attribute(text: str) -> tuple[str, AttributeValue]:
    """Parse NAME=VALUE; a number is one, true and false are truth values."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    return name, attribute_value(value)


def attribute_value(text: str) -> AttributeValue:
    """Return what a text stands for."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text

"""Options that the verbs of `murank gallery` share, and how times and attributes are written."""

import argparse
import contextlib
from datetime import datetime
from pathlib import Path

from murank.gallery.shot_records import AttributeValue


def add_file(parser: argparse.ArgumentParser, *, engine: bool = False) -> None:
    """Add the gallery's file, and the engine where one is needed."""
    if engine:
        parser.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    parser.add_argument("file", metavar="FILE", type=Path, help="of the gallery")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice of JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def moment(text: str) -> float:
    """Parse seconds since the epoch, or a date and time with its zone, ISO 8601."""
    with contextlib.suppress(ValueError):
        return float(text)
    with contextlib.suppress(ValueError):
        given = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        if given.tzinfo is not None:
            return given.timestamp()
    raise argparse.ArgumentTypeError(
        f"must be seconds since the epoch, or like 2026-11-29T18:00:00+01:00, got {text!r}"
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

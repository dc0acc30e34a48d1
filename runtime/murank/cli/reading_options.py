"""How image files are read: bits of a sensor, and what decoding one may cost."""

import argparse
from dataclasses import fields
from typing import Any

from murank._exceptions import InputError, UsageError
from murank.images import DecodeLimits

_KEYS = tuple(field.name for field in fields(DecodeLimits))


def add_reading_options(group: Any) -> None:
    """Add the options that `reading_of` reads."""
    group.add_argument(
        "--bits", type=int, choices=range(8, 17), metavar="N",
        help="that the sensor gave, of 16-bit grey images (16)",
    )  # fmt: skip
    group.add_argument(
        "--decode-limits", type=_limits, metavar="KEY=N,...",
        help=f"what decoding an image may cost: {', '.join(_KEYS)}",
    )  # fmt: skip


def reading_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was given, as keyword arguments of `Engine.from_pretrained`."""
    given = {"bits": args.bits, "decode_limits": args.decode_limits}
    return {key: value for key, value in given.items() if value is not None}


def image_reading_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was given, as keyword arguments of `load_image` and of those who draw sheets."""
    names = {"bits": "bits", "decode_limits": "limits"}
    return {names[key]: value for key, value in reading_of(args).items()}


def check_reading(args: argparse.Namespace, *, reads: bool, by: str) -> None:
    """Raise UsageError if how to read images was said, and none is read."""
    if not reads and reading_of(args):
        raise UsageError(f"--bits and --decode-limits are of images: they need {by}")


def _limits(text: str) -> DecodeLimits:
    limits: dict[str, int] = {}
    for item in text.split(","):
        key, _, value = item.partition("=")
        if key not in _KEYS or key in limits or not value.isascii() or not value.isdigit():
            raise argparse.ArgumentTypeError(
                f"must be KEY=N with commas between, each once, of {', '.join(_KEYS)}"
            )
        limits[key] = int(value[:20])
    try:
        return DecodeLimits(**limits)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

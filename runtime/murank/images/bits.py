"""Values of more than 8 bits: the upper 8 of those that count are kept."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from murank._exceptions import InputError
from murank.checks.text import warn

# Sensors of 10 to 14 bits write their values as they are into files of 16.
_DARK = (1 << 14) - 1


def check_bits(bits: Any) -> None:
    """Raise InputError unless it is a whole number in 8..16, or None."""
    if bits is not None and (type(bits) is not int or not 8 <= bits <= 16):
        raise InputError(f"bits must be a whole number in 8..16, or None, got {bits!r:.80}")


def high_byte(values: NDArray[Any], bits: int | None, name: str) -> NDArray[np.uint8]:
    """Return the upper 8 of `bits` bits (None: 16) of whole numbers."""
    check_bits(bits)
    smallest, largest = int(values.min()), int(values.max())
    if smallest < 0 or largest > 0xFFFF:
        raise InputError(
            f"{name} holds grey values outside 0..65535; save it with 8 or 16 bits a channel"
        )
    if bits is not None and largest >> bits:
        raise InputError(
            f"{name} holds the value {largest}, more than {bits} bits can; say how many there are "
            "(bits=)"
        )
    if bits is None:
        warn_if_dark(largest, name)
    return (values >> ((bits or 16) - 8)).astype(np.uint8)


def eight_bits(image: Image.Image, bits: int | None, name: str) -> Image.Image:
    """Scale 16-bit grey, which PIL would clip; PIL itself keeps the high byte of 16-bit colour."""
    if image.mode == "F":
        raise InputError(f"{name} holds floating point values; save it with 8 bits a channel")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    return Image.fromarray(high_byte(np.asarray(image), bits, name))


def check_deep_colour(rgb: Image.Image, bits: int | None, name: str) -> None:
    """Look at an image whose 16 bits a channel PIL has made 8."""
    if bits not in (None, 16):
        raise InputError(
            f"{name} has 16 bits in each of several channels, of which the upper 8 are read, so "
            "that bits= cannot be kept; save it with 8 bits a channel, or as grey"
        )
    if bits is None:
        warn_if_dark(max(int(most) for _, most in rgb.getextrema()) << 8, name)  # type: ignore[misc]


def warn_if_dark(largest: int, name: str) -> None:
    """Warn if 16-bit values are so small that they were made by fewer bits."""
    if 0 < largest <= _DARK:
        warn(
            f"{name} has 16 bits a value, and its largest is {largest} of 65535, so it is read as "
            "nearly black; if its sensor gives fewer bits, say how many (bits=)",
            room="images",
        )

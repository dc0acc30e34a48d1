"""Binary PGM and PPM of any largest value; Pillow reads most of them a sample at a time."""

import math
import re

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.images.bits import high_byte
from murank.images.limits import DecodeLimits

_SPACE = rb"[ \t\n\v\f\r]"
_HEADER = re.compile(rb"P([56])%b+([0-9]{1,9})%b+([0-9]{1,9})%b+([0-9]{1,9})%b" % ((_SPACE,) * 4))
_BITMAP = re.compile(rb"P4%b+[0-9]{1,9}%b+[0-9]{1,9}%b" % ((_SPACE,) * 3))


def is_netpbm(data: bytes) -> bool:
    """Whether the bytes begin as PBM, PGM or PPM."""
    return re.match(rb"P[0-9fFy]", data) is not None


def check_netpbm(data: bytes, name: str, limits: DecodeLimits) -> re.Match[bytes] | None:
    """Return the header; None if it is a bitmap, which Pillow reads in one go.

    Raises
    ------
    InputError
        It is text or floating point, has comments, is damaged or too large.
    """
    if data[1:2] in b"123":
        raise InputError(f"{name} is a PPM written as text, which is not read; convert it to PNG")
    if data[1:2] in b"fF":
        raise InputError(f"{name} holds floating point values; save it with 8 bits a channel")
    header = _HEADER.match(data)
    if header is None:
        if _BITMAP.match(data):
            return None
        raise InputError(
            f"{name} is truncated or damaged, or its header has comments, which are not read; "
            "convert it to PNG"
        )
    width, height, largest = map(int, header.groups()[1:])
    limits.check_size(width, height, name)
    if not 1 <= largest <= 0xFFFF:
        raise InputError(f"{name} is damaged: its largest value is {largest}, not in 1..65535")
    return header


def read_netpbm(
    data: bytes, name: str, limits: DecodeLimits, bits: int | None
) -> NDArray[np.uint8] | None:
    """Return the pixels [H,W] or [H,W,3], scaled to 0..255; None, and the errors: `check_netpbm`.

    `bits` counts where the header gives all 16 bits; a smaller largest value says it itself.
    """
    header = check_netpbm(data, name, limits)
    if header is None:
        return None
    width, height, largest = map(int, header.groups()[1:])
    shape = (height, width, 3) if header[1] == b"6" else (height, width)
    dtype = np.dtype(">u2" if largest > 0xFF else "u1")
    count = math.prod(shape)
    if len(data) - header.end() < count * dtype.itemsize:
        raise InputError(f"{name} is truncated; replace it or leave it out")
    samples = np.frombuffer(data, dtype, count, header.end()).reshape(shape)
    if largest == 0xFFFF:
        return high_byte(samples, bits, name)
    top = 0xFFFF if largest > 0xFF else 0xFF
    scaled = np.rint(np.arange(top + 1) / largest * top).clip(0, top).astype(np.uint16)
    table = (scaled >> 8 if largest > 0xFF else scaled).astype(np.uint8)
    pixels: NDArray[np.uint8] = table[samples]
    return pixels

"""What the bytes of an image say of its cost, read without a decoder.

Pillow is trusted with none of this: some of its readers work in Python, a pixel or a chunk at a
time, or allocate what the header asks for.
"""

import re
import struct

from murank._exceptions import InputError
from murank.images.limits import DecodeLimits

_PNG = b"\x89PNG\r\n\x1a\n"
# Any marker but a restart; 0 behind 0xFF is data.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_START_OF_SCAN, _END_OF_IMAGE, _NO_LENGTH = 0xDA, 0xD9, {0x01, 0xD8}
_JUNK = 1 << 16  # bytes between segments before the first scan, at most
_BYTES_A_CHUNK = 1024  # of pixels of a PNG, at the least; writers take 8,192 and more


def check_header(data: bytes, name: str, limits: DecodeLimits) -> None:
    """Raise InputError if decoding these bytes could cost more than the limits allow."""
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data, name, limits)
    elif data.startswith(_PNG):
        _check_png(data, name, limits)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _check_webp(data, name, limits)
    elif data.startswith(b"BM"):
        _check_bmp(data, name)


def is_deep_colour(data: bytes) -> bool:
    """Whether it is a PNG of 16 bits in each of several channels."""
    return data.startswith(_PNG) and data[24:25] == b"\x10" and data[25:26] in (b"\2", b"\4", b"\6")


def _check_jpeg(data: bytes, name: str, limits: DecodeLimits) -> None:
    scans = parts = junk = 0
    place = 2
    while (segment := _MARKER.search(data, place)) is not None:
        marker = segment[1][0]
        parts += 1
        junk += 0 if scans else segment.start() - place
        scans += marker == _START_OF_SCAN
        for count, most, what in (
            (scans, limits.max_scans, "scans"),
            (parts, limits.max_parts, "segments"),
            (junk, _JUNK, "bytes that belong to no segment"),
        ):
            if count > most:
                raise InputError(
                    f"{name} has more than {most:,} {what}, the most allowed of a JPEG; "
                    "save it anew or leave it out"
                )
        if marker == _END_OF_IMAGE:
            return
        place = segment.end()
        if marker not in _NO_LENGTH:
            place += int.from_bytes(data[place : place + 2], "big")


def _check_png(data: bytes, name: str, limits: DecodeLimits) -> None:
    chunks = parts = 0
    place = len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        if kind == b"IDAT":
            chunks += 1
        else:
            parts += 1
        if parts > limits.max_parts or chunks > limits.max_parts + len(data) // _BYTES_A_CHUNK:
            raise InputError(
                f"{name} has too many chunks for a PNG of {len(data):,} bytes; "
                "save it anew or leave it out"
            )


def _check_webp(data: bytes, name: str, limits: DecodeLimits) -> None:
    """The size: Pillow's decoder makes room for all pixels when the file is opened."""
    kind, head = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    limits.check_size(width, height, name)


def _check_bmp(data: bytes, name: str) -> None:
    size, compression = int.from_bytes(data[14:18], "little"), data[30:34]
    if size >= 40 and compression in (b"\1\0\0\0", b"\2\0\0\0"):
        raise InputError(f"{name} is a BMP with run lengths, which are not read; convert it to PNG")

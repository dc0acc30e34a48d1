"""Which way up an image is, by EXIF that may have been written to fill the memory."""

import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.ExifTags import Base as ExifTag

# Pillow reads every value of the first directory; several may be the same megabytes of the file.
_MOST_REFERENCED = 4 << 20
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_UNIT = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # bytes by type; else 1


def orientation(image: Image.Image) -> Any:
    """Return the value of the EXIF tag, None if there is none. Raises what PIL raises."""
    blob = _blob(image.info)
    if blob is not None and _referenced(blob) > _MOST_REFERENCED:
        return None
    return image.getexif().get(ExifTag.Orientation)


def _blob(info: Mapping[Any, Any]) -> bytes | None:
    """Return the bytes that PIL would read."""
    blob = info.get("exif")
    text = info.get("Raw profile type exif")
    if blob is None and isinstance(text, str):
        blob = bytes.fromhex("".join(text.split("\n")[3:]))
    return blob if isinstance(blob, bytes) else None


def _referenced(blob: bytes) -> int:
    """Return the bytes of all values of the first directory."""
    while blob.startswith(b"Exif\0\0"):
        blob = blob[6:]
    order = _TIFF.get(blob[:4])
    if order is None:
        return 0 if blob[2:4] not in (b"+\0", b"\0+") else _MOST_REFERENCED + 1  # 64-bit offsets
    (place,) = struct.unpack_from(order + "L", blob, 4)
    (entries,) = struct.unpack_from(order + "H", blob, place)
    total = 0
    for number in range(min(entries, (len(blob) - place - 2) // 12)):
        kind, count = struct.unpack_from(order + "HL", blob, place + 4 + 12 * number)
        total += min(count * _UNIT.get(kind, 1), len(blob))
    return total

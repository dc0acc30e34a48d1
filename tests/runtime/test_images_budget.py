"""Files that cost far more than they weigh are refused by their header."""

import io
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from murank import InputError
from murank.images import DecodeLimits, decoded, load_image
from murank.images.in_flight import PixelsInFlight
from murank.images.orientation import orientation

_CPU_SECONDS = 2.0  # of one file; without the counts the slowest of them take over 20
_BYTES = 200 << 20
_RNG = np.random.default_rng(0)
PIXELS = _RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def many_scans() -> bytes:
    """A progressive JPEG whose last scan is there 5,000 times."""
    whole = saved("JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * 5_000 + whole[-2:]


def many_segments() -> bytes:
    whole = saved("JPEG")
    return whole[:2] + b"\xff\xfe\0\2" * 2_000_000 + whole[2:]


def filled_jpeg() -> bytes:
    whole = saved("JPEG")
    return whole[:2] + b"\xff" * (24 << 20) + whole[2:]


def wide_png() -> bytes:
    return png(50_000_000, 1, png_chunk(b"IDAT", zlib.compress(bytes(50_000_001))))


def chunked_png() -> bytes:
    empty = png_chunk(b"IDAT", b"")
    return png(64, 64, *([empty] * 500_000), png_chunk(b"IDAT", zlib.compress(bytes(64 * 65))))


def profiles_png() -> bytes:
    profile = png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1_000_000)))
    return png(64, 64, *([profile] * 8_000), png_chunk(b"IDAT", zlib.compress(bytes(64 * 65))))


def vast_webp() -> bytes:
    bits = (16_383 | 16_383 << 14).to_bytes(4, "little")
    body = b"WEBPVP8L" + struct.pack("<I", 10) + b"\x2f" + bits + bytes(5)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def vast_webp_canvas() -> bytes:
    side = (16_383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    return b"RIFF" + struct.pack("<I", len(body)) + body


def run_length_bmp() -> bytes:
    """Lines that end and end again."""
    header = struct.pack("<IiiHHIIiiII", 40, 4_000, 4_000, 1, 8, 1, 0, 0, 0, 256, 0)
    body = header + bytes(1024) + bytes(16 << 20)
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + 40 + 1024) + body


def plain_ppm() -> bytes:
    return b"P3\n1000 1000\n255\n" + b"1 2 3\n" * 1_000_000


def commented_ppm() -> bytes:
    return b"P6\n#" + b"x" * (24 << 20) + b"\n1 1\n255\n123"


HOSTILE = [
    many_scans, many_segments, filled_jpeg, wide_png, chunked_png, profiles_png, vast_webp,
    vast_webp_canvas, run_length_bmp, plain_ppm, commented_ppm,
]  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE)
def test_refused_at_once(tmp_path: Path, make: Callable[[], bytes]) -> None:
    file = tmp_path / "image"
    file.write_bytes(make())
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        load_image(file)
    spent = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(file) in str(caught.value)
    assert spent < _CPU_SECONDS
    assert peak < _BYTES


def test_an_image_that_the_caller_opened_is_looked_at_too(tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(many_scans())
    with Image.open(file) as image, pytest.raises(InputError, match="scans"):
        load_image(image)


def test_what_cameras_and_editors_write_is_read(tmp_path: Path) -> None:
    file = tmp_path / "image"
    for content in (
        saved("JPEG", progressive=True, optimize=True, quality=100, subsampling=0),
        saved("JPEG", restart_marker_blocks=1, icc_profile=bytes(3_000_000)),  # many of both
        saved("JPEG") + bytes(_RNG.integers(0, 256, 1 << 20, np.uint8)),  # a film behind it
        saved("PNG", compress_level=0),
        saved("WEBP"), saved("BMP"),
    ):  # fmt: skip
        file.write_bytes(content)
        assert load_image(file).size == (64, 64)


def test_scans_are_counted_as_libjpeg_meets_them(tmp_path: Path) -> None:
    file = tmp_path / "image"
    whole = saved("JPEG", progressive=True)
    num_scans = whole.count(b"\xff\xda")  # no profile, so no such bytes anywhere else
    file.write_bytes(whole)
    assert load_image(file, limits=DecodeLimits(max_scans=num_scans)).size == (64, 64)
    with pytest.raises(InputError, match="scans"):
        load_image(file, limits=DecodeLimits(max_scans=num_scans - 1))


def test_exif_that_names_the_same_bytes_many_times() -> None:
    """Pillow would hold 4,000 copies of a megabyte."""
    count, size = 4_000, 1 << 20
    place = 8 + 2 + 12 * count
    entries = b"".join(
        struct.pack("<HHLL", 40_000 + number, 7, size, place) for number in range(count)
    )
    blob = b"II*\0" + struct.pack("<LH", 8, count) + entries + bytes(size)
    image = Image.new("RGB", (2, 2))
    infos: list[dict[str | tuple[int, int], Any]] = [
        {"exif": b"Exif\0\0" + blob},
        {"Raw profile type exif": "\nexif\n9\n" + blob.hex()},
        {"exif": b"II+\0" + blob[4:]},
    ]
    for info in infos:
        image.info.clear()
        image.info.update(info)
        tracemalloc.start()
        assert orientation(image) is None
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10 * len(blob)


def test_pixels_in_flight_wait_for_room() -> None:
    budget = PixelsInFlight()
    inside: list[int] = []
    most: list[int] = []

    def work(pixels: int) -> None:
        with budget.hold(pixels, 10):
            inside.append(pixels)
            most.append(sum(inside))
            time.sleep(0.001)
            inside.remove(pixels)

    threads = [threading.Thread(target=work, args=(1 + n % 7,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 40
    assert max(most) <= 10
    with budget.hold(1_000, 10):  # alone it may
        assert budget.pixels == 1_000
    assert budget.pixels == 0


def test_decoding_counts_until_it_is_let_go() -> None:
    from murank.images.in_flight import in_flight

    before = in_flight.pixels
    with decoded(Image.fromarray(PIXELS)):
        assert in_flight.pixels == before + 64 * 64
    assert in_flight.pixels == before
    with pytest.raises(InputError, match="floating"):
        load_image(Image.new("F", (4, 4)))
    assert in_flight.pixels == before

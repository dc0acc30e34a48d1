"""Images of more than 8 bits, and of sensors that fill not all 16."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged import logged
from numpy.typing import NDArray
from PIL import Image

from murank import InputError
from murank.images import Preprocessing, load_image, prepare

VALUES = np.array([[0, 15, 16], [1000, 2048, 4095]], np.uint16)  # of 12 bits
BYTES = VALUES >> 4


def grey(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)[..., 0]


def files(folder: Path) -> list[Path]:
    """The values as PNG, and as a PGM that claims all 16 bits."""
    png, pgm = folder / "a.png", folder / "a.pgm"
    Image.fromarray(VALUES).save(png)
    pgm.write_bytes(b"P5 3 2 65535\n" + VALUES.astype(">u2").tobytes())
    return [png, pgm]


def test_bits_say_where_white_is(tmp_path: Path) -> None:
    sources: list[Any] = [
        *files(tmp_path),
        Image.fromarray(VALUES),
        Image.fromarray(VALUES.astype(np.int32)),
    ]
    for source in sources:
        np.testing.assert_array_equal(grey(load_image(source, bits=12)), BYTES)
        np.testing.assert_array_equal(grey(load_image(source, bits=16)), VALUES >> 8)  # no warning
        with pytest.raises(InputError, match="4095"):
            load_image(source, bits=11)


def test_a_note_where_the_bits_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in files(tmp_path):
        with logged(file.name):
            np.testing.assert_array_equal(grey(load_image(file)), VALUES >> 8)
    caplog.clear()
    bright = np.array([[0, 1 << 14]], np.uint16)
    for values in (bright, np.zeros((2, 2), np.uint16)):  # black is black
        load_image(Image.fromarray(values))
    assert not caplog.records


@pytest.mark.parametrize("largest", [100, 1023, 4095, 65535])
def test_a_pgm_says_its_largest_value_itself(tmp_path: Path, largest: int) -> None:
    values = np.array([[0, largest // 2, largest]])
    file = tmp_path / "a.pgm"
    kind = ">u2" if largest > 255 else "u1"
    file.write_bytes(f"P5\n3 1\n{largest}\n".encode() + values.astype(kind).tobytes())
    found = grey(load_image(file, bits=16))
    assert (found[0, 0], found[0, 2]) == (0, 255)
    assert abs(int(found[0, 1]) - 127) <= 1


def test_colour_of_16_bits(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint16).reshape(2, 3, 3) * 240  # up to 4080
    ppm = tmp_path / "a.ppm"
    ppm.write_bytes(b"P6 3 2 65535\n" + pixels.astype(">u2").tobytes())
    np.testing.assert_array_equal(np.asarray(load_image(ppm, bits=12)), pixels >> 4)
    with logged("nearly black"):
        load_image(ppm)


def test_a_16_bit_colour_png(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    def colour_png(value: int) -> bytes:
        row = b"\0" + struct.pack(">3H", value, value, value) * 2
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(row))
            + chunk(b"IEND", b"")
        )

    file = tmp_path / "a.png"
    file.write_bytes(colour_png(0x0FFF))
    for source in (file, Image.open(io.BytesIO(colour_png(0x0FFF)))):
        with logged("nearly black"):
            assert grey(load_image(source)).tolist() == [[0x0F, 0x0F]]
    with pytest.raises(InputError, match="bits="):
        load_image(file, bits=12)
    file.write_bytes(colour_png(0xF000))
    assert grey(load_image(file)).tolist() == [[0xF0, 0xF0]]


@pytest.mark.parametrize("bits", [7, 17, 0, -1, 12.0, True, "12"])
def test_bits_that_cannot_be(bits: object) -> None:
    with pytest.raises(InputError, match="bits"):
        load_image(Image.new("RGB", (2, 2)), bits=bits)  # type: ignore[arg-type]


def test_bits_belong_to_the_preprocessing_not_to_the_manifest() -> None:
    how = Preprocessing(2, 3, resample="nearest", bits=12)
    ready = prepare(Image.fromarray(VALUES), how)
    np.testing.assert_array_equal(ready.pixels[0], BYTES)
    assert how != Preprocessing(2, 3, resample="nearest")
    assert set(how.to_json()) == {"height", "width", "resample", "shortest_edge"}

import contextlib
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from murank import InputError
from murank.images import DecodeLimits, load_image

ORIENTATION = 0x0112


def colours(height: int = 7, width: int = 5, channels: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int = 2, height: int = 2, before: bytes = b"", after: bytes = b"", colour: int = 0
) -> bytes:
    """A black PNG by hand, with chunks of our choice; only a small one has all its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    pixels = zlib.compress(bytes(min(width * height + height, 100)))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", pixels)
        + after
        + chunk(b"IEND", b"")
    )


def written(folder: Path, content: bytes) -> Path:
    file = folder / "image"
    file.write_bytes(content)
    return file


def same(image: Image.Image, wanted: Image.Image) -> None:
    assert image.mode == wanted.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(wanted))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "WEBP"])
def test_lossless_formats(tmp_path: Path, kind: str) -> None:
    file = written(tmp_path, encoded(Image.fromarray(colours()), kind, lossless=True))
    for source in (file, str(file)):
        np.testing.assert_array_equal(np.asarray(load_image(source)), colours())


def test_jpeg(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(colours()), "JPEG")
    with Image.open(io.BytesIO(content)) as wanted:
        same(load_image(written(tmp_path, content)), wanted.convert("RGB"))


def test_arrays() -> None:
    np.testing.assert_array_equal(np.asarray(load_image(colours())), colours())
    np.testing.assert_array_equal(
        np.asarray(load_image(colours()[::-1, ::2])), colours()[::-1, ::2]
    )
    grey = colours()[..., 0]
    np.testing.assert_array_equal(np.asarray(load_image(grey)), np.stack([grey] * 3, axis=2))


def test_the_source_stays_as_it_is() -> None:
    array = colours()
    load_image(array).putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(array, colours())
    image = Image.fromarray(colours())
    image.info["note"] = "mine"
    load_image(image).putpixel((0, 0), (1, 2, 3))
    same(image, Image.fromarray(colours()))
    assert image.info == {"note": "mine"}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (colours().astype(np.float32), "uint8 array with values 0..255, got float32"),
        (colours().astype(np.int64), "got int64"),
        (colours(channels=4), r"\[H,W,3\] \(RGB\) or \[H,W\] \(grey\), got \[7, 5, 4\]"),
        (colours()[None], r"got \[1, 7, 5, 3\]"),
        (colours()[0, 0], r"got \[3\]"),
        (colours()[:0], "has no pixels: it is 5 x 0"),
        (colours()[:, :0, 0], "has no pixels: it is 0 x 7"),
    ],
)
def test_bad_arrays(array: NDArray[Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^image .*{message}"):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, io.BytesIO(b"image.png"), [[1, 2], [3, 4]]])
def test_other_types(source: Any) -> None:
    kind = type(source).__name__
    with pytest.raises(InputError, match=f"^image must be a path, the bytes .* got {kind}$"):
        load_image(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "PPM"])
def test_bytes_are_what_their_file_is(tmp_path: Path, kind: str) -> None:
    raw = encoded(Image.fromarray(colours()), kind)
    file = written(tmp_path, raw)
    for source in (raw, bytearray(raw), memoryview(raw), memoryview(raw + raw)[: len(raw)]):
        same(load_image(source), load_image(file))
    with pytest.raises(InputError, match="fsdecode"):
        load_image(bytes(file))
    with pytest.raises(InputError, match="tobytes"):
        load_image(np.frombuffer(raw, np.uint8))


def test_messages_use_the_name_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^query 3 must have shape"):
        load_image(colours(channels=2), name="query 3")
    with pytest.raises(InputError, match=r"^query 4 is empty"):
        load_image(written(tmp_path, b""), name="query 4")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_follow_pil(mode: str) -> None:
    image = Image.fromarray(colours()).convert(mode)
    same(load_image(image), image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(colours()).convert(mode)
    image.putalpha(0)
    wanted = Image.fromarray(colours())
    same(
        load_image(written(tmp_path, encoded(image, "PNG"))),
        wanted if mode == "RGBA" else wanted.convert("L").convert("RGB"),
    )


def test_transparent_palette(tmp_path: Path) -> None:
    image = Image.fromarray(colours()).convert("P")
    content = encoded(image, "PNG", transparency=b"\x00\x80\xff")
    same(load_image(written(tmp_path, content)), image.convert("RGB"))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(colours()).convert("CMYK"), "JPEG")
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "CMYK"
        same(load_image(written(tmp_path, content)), image.convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_16_bit_grey_is_scaled(tmp_path: Path, kind: str) -> None:
    values = np.array([[0, 255, 256], [0x7FFF, 0x8000, 0xFFFF]], np.uint16)
    pixels = np.asarray(load_image(written(tmp_path, encoded(Image.fromarray(values), kind))))
    np.testing.assert_array_equal(pixels[..., 0], [[0, 0, 1], [127, 128, 255]])
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_32_bit_grey() -> None:
    values = np.array([[0, 0x8000, 0xFFFF]], np.int32)
    assert np.asarray(load_image(Image.fromarray(values)))[0, :, 0].tolist() == [0, 128, 255]
    for outside in (-1, 0x10000):
        with pytest.raises(InputError, match=r"outside 0\.\.65535"):
            load_image(Image.fromarray(values + np.int32(outside)))
    with pytest.raises(InputError, match="floating point"):
        load_image(Image.fromarray(values.astype(np.float32)))


@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = written(tmp_path, encoded(Image.fromarray(colours()), "PNG", exif=exif))
    with Image.open(file) as image:
        wanted = ImageOps.exif_transpose(image)
        same(load_image(image), wanted)  # a caller's PIL image is treated alike
    upright = load_image(file)
    same(upright, wanted)
    assert upright.info == {}
    same(load_image(upright), wanted)  # not turned a second time


def test_unreadable_exif_is_no_exif(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(colours()), "PNG", exif=b"Exif\x00\x00nonsense")
    same(load_image(written(tmp_path, content)), Image.fromarray(colours()))
    info = PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n4\nnonsense\n")
    content = encoded(Image.fromarray(colours()), "PNG", pnginfo=info)
    same(load_image(written(tmp_path, content)), Image.fromarray(colours()))


def test_the_first_picture_of_an_mpo_is_the_photograph(tmp_path: Path) -> None:
    first, second = Image.fromarray(colours()), Image.new("RGB", (5, 7))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "MPO"
        same(load_image(written(tmp_path, content)), image.convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    options = {"save_all": True, "append_images": frames[1:], "lossless": True}
    file = written(tmp_path, encoded(frames[0], kind, **options))
    with pytest.raises(InputError, match="image is animated: it holds 3 frames"):
        load_image(file)
    with Image.open(file) as image:
        with pytest.raises(InputError, match="animated"):
            load_image(image)
        same(load_image(image.copy()), Image.new("RGB", (4, 4), "red"))  # one frame, chosen


def test_other_formats_are_not_tried(tmp_path: Path) -> None:
    for kind in ("GIF", "TIFF", "ICO"):
        content = encoded(Image.new("RGB", (16, 16)), kind)
        with pytest.raises(InputError, match="not a JPEG, PNG, BMP, WEBP or PPM image"):
            load_image(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<html>not found</html>", "is a web page"),
        (bytes(100), "not a JPEG, PNG"),
        (b"\xff\xd8\xff", "not a JPEG, PNG"),
        (png(0, 2), "not a JPEG, PNG"),
        (png()[:40], "its header is damaged"),
        (png(50, 50)[:-20], "truncated or damaged"),
        (png(colour=3, before=chunk(b"tRNS", b"\xff\x00")), "truncated or damaged"),
        (png(before=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**21)))), "MAX_TEXT_CHUNK"),
        (png(before=chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**21)))), "MAX_TEXT_CHUNK"),
        (png(after=chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2**21)))), "MAX_TEXT"),
        (b"P5\n2 2\nmany\n1234", "truncated or damaged"),
        (b"Pf\n1 1\n-1.0\n1234", "floating point"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        load_image(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "PPM"])
def test_truncated_anywhere(tmp_path: Path, kind: str) -> None:
    content = encoded(Image.fromarray(colours(20, 20)), kind)
    for length in range(1, len(content) * 9 // 10, 7):
        with pytest.raises(InputError):
            load_image(written(tmp_path, content[:length]))


def test_changed_bytes_never_end_in_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image = Image.fromarray(colours())
    samples = [encoded(image, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP")]
    samples += [encoded(image.convert("P"), kind) for kind in ("PNG", "BMP")]
    for sample in samples:
        for _ in range(60):
            content = bytearray(sample)
            for place in rng.integers(0, len(content), 4):
                content[place] = rng.integers(256)
            file = written(tmp_path, bytes(content))
            with contextlib.suppress(InputError):
                assert load_image(file).mode == "RGB"


@pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000), (6_000, 5_000), (100_000, 100_000)])
def test_the_header_alone_decides_on_the_size(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"image is \d+ x \d+, more than|far more pixels"):
        load_image(written(tmp_path, png(*size)))


def test_limits_of_size(tmp_path: Path) -> None:
    file = written(tmp_path, encoded(Image.fromarray(colours()), "PNG"))  # 5 x 7
    exact = {"max_pixels": 35, "max_side": 7, "max_bytes": file.stat().st_size}
    raw = file.read_bytes()
    with Image.open(file) as image:
        for source in (file, image, colours(), raw, bytearray(raw), memoryview(raw)):
            assert load_image(source, limits=DecodeLimits(**exact)).size == (5, 7)
            for key in ("max_pixels", "max_side"):
                limits = DecodeLimits(**{**exact, key: exact[key] - 1})
                with pytest.raises(InputError, match="5 x 7, more than"):
                    load_image(source, limits=limits)
    for source in (file, raw, bytearray(raw), memoryview(raw)):
        with pytest.raises(InputError, match="bytes"):
            load_image(source, limits=DecodeLimits(max_bytes=exact["max_bytes"] - 1))
    with pytest.raises(InputError, match="an aspect of 2"):
        load_image(np.zeros((2, 5), np.uint8), limits=DecodeLimits(max_aspect=2))


@pytest.mark.parametrize("value", [0, -1, 2.5, True, None, "9", float("nan"), 1 << 50])
def test_limits_that_cannot_be(value: Any) -> None:
    with pytest.raises(InputError, match="max_side"):
        DecodeLimits(max_side=value)


def test_places_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.png"):
        load_image(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="is a folder; name an image file in it"):
        load_image(tmp_path)
    with pytest.raises(InputError, match="is no path"):
        load_image("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        load_image(tmp_path / "pipe")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, png())

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # the tests may run as root
    with pytest.raises(InputError, match="image: Permission denied"):
        load_image(file)


def test_a_closed_or_damaged_pil_image(tmp_path: Path) -> None:
    closed = Image.new("RGB", (2, 2))
    closed.close()
    content = encoded(Image.fromarray(colours(50, 50)), "JPEG")
    with Image.open(written(tmp_path, content[:-200])) as truncated:
        for image in (closed, truncated):
            with pytest.raises(InputError, match=r"^image is truncated or damaged"):
                load_image(image)


def test_our_own_bugs_stay_bugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_args: Any, **_kwargs: Any) -> None:
        raise TypeError("unexpected keyword")

    monkeypatch.setattr(Image, "open", wrong)
    with pytest.raises(TypeError, match="unexpected keyword"):
        load_image(written(tmp_path, png()))


def noisy_png() -> bytes:
    """PIL warns about its animation chunk, and decodes it."""
    return png(before=chunk(b"acTL", bytes(8)))


def test_warnings_of_pil_stay_inside(tmp_path: Path) -> None:
    file = written(tmp_path, noisy_png())
    with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(file):
        pass
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        load_image(file)
        assert list(warnings.filters) == before
        warnings.warn("ours", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["ours"]


def test_threads_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    file = written(tmp_path, noisy_png())
    before = list(warnings.filters)
    errors: list[BaseException] = []
    threads = [threading.Thread(target=collect(errors, file)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(warnings.filters) == before


def collect(errors: list[BaseException], file: Path) -> Callable[[], None]:
    def work() -> None:
        try:
            for _ in range(30):
                load_image(file)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    return work


def test_no_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    really_open = os.open

    def remember(path: Path, flags: int) -> int:
        opened.append(really_open(path, flags))
        return opened[-1]

    for content in (png(), png(50, 50)[:-20], png(9999, 9999), b"no image", noisy_png()):
        file = written(tmp_path, content)
        with monkeypatch.context() as patch, contextlib.suppress(InputError):
            patch.setattr(os, "open", remember)
            load_image(file)
    assert len(opened) == 5
    for descriptor in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)

"""Images from anywhere, decoded with care: RGB pixels, or one sentence on what is wrong."""

import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from murank._exceptions import InputError
from murank.files.stand_in import stand_in, stands_in
from murank.images.bits import check_bits, check_deep_colour, eight_bits
from murank.images.headers import check_header, is_deep_colour
from murank.images.in_flight import in_flight
from murank.images.limits import DEFAULT_LIMITS, DecodeLimits
from murank.images.netpbm import check_netpbm, is_netpbm, read_netpbm
from murank.images.orientation import orientation

RawImage = str | bytes | bytearray | memoryview | os.PathLike[str] | Image.Image | NDArray[np.uint8]

_LONGEST_PATH = 4096  # bytes

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")

# What PIL raises on bytes that are no image, or no longer one.
_DAMAGE = (
    OSError, EOFError, SyntaxError, ValueError, LookupError, ArithmeticError, MemoryError,
    AssertionError, NotImplementedError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip

_TURNS: Mapping[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(
    source: RawImage,
    *,
    bits: int | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
    name: str | None = None,
) -> Image.Image:
    """Return the image as RGB, turned upright by its EXIF orientation, without metadata.

    Alpha is dropped and colour profiles are not applied, as `PIL.Image.Image.convert("RGB")` has
    it; of 16-bit values the high byte is kept. Of the several pictures that a telephone puts into
    a JPEG (MPO) the first one, the photograph, is taken. The source is neither changed nor closed.

    Parameters
    ----------
    source
        A path of a JPEG, PNG, BMP, WEBP or binary PPM file, the bytes of one (or a bytearray or
        memoryview), a PIL image, or uint8 [H,W,3] RGB (not BGR) or [H,W] grey.
    bits
        Of 16-bit grey values, 8..16: how many the sensor gave, so that a 12-bit one is white at
        4095. None: 16, with a warning in the log if no value needs more than 14.
    limits
        What decoding may cost: a file beyond is refused before its pixels are decoded. PIL's own
        limit stays in force.
    name
        What messages call the image. None: the path, or "image".

    Raises
    ------
    InputError
        It cannot be read, is damaged, too large or empty, or holds several frames.
    """
    with decoded(source, bits=bits, limits=limits, name=name) as image:
        return image


@contextmanager
def decoded(
    source: RawImage,
    *,
    bits: int | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
    name: str | None = None,
) -> Iterator[Image.Image]:
    """Yield what `load_image` returns; inside, its pixels count as being decoded.

    Whoever makes a small picture of it should do so inside, and let go of it.
    """
    check_bits(bits)
    if isinstance(source, (str, bytes, bytearray, memoryview, os.PathLike)):
        if isinstance(source, (bytes, bytearray, memoryview)):
            name = name or "image"
            _check_bytes(memoryview(source).nbytes, name, limits)
            raw = bytes(source)
            _check_no_path(raw, name)
        else:
            path = Path(source)
            name = name or str(path)
            raw = read_file(path, limits, name=name)
        check_header(raw, name, limits)
        instead = stands_in(raw)
        if instead is not None:
            raise InputError(f"{name} {instead}, or leave it out")
        if is_netpbm(raw):
            values = read_netpbm(raw, name, limits, bits)
            source = _opened(raw, name) if values is None else Image.fromarray(values)
        else:
            source = _opened(raw, name)
        with source, _upright(source, name, bits, limits, is_deep=is_deep_colour(raw)) as rgb:
            yield rgb
    elif isinstance(source, Image.Image):
        raw = _bytes_behind(source, name or "image", limits)
        is_deep = is_deep_colour(raw)
        with _upright(source, name or "image", bits, limits, is_deep=is_deep) as rgb:
            yield rgb
    elif isinstance(source, np.ndarray):
        yield _load_array(source, name or "image", limits)
    else:
        raise InputError(
            f"{name or 'image'} must be a path, the bytes of a file (of an open one, file.read()), "
            f"a PIL image or a uint8 RGB array [H,W,3], got {type(source).__name__}"
        )


def read_file(path: Path, limits: DecodeLimits, *, name: str | None = None) -> bytes:
    """Return all bytes of a regular file: what was checked is what is decoded.

    Raises InputError if it cannot be read, or is beyond the limits.
    """
    name = name or str(path)
    try:
        _check_status(path.stat(), name, limits)  # opening a device may act on it
        # Should it be replaced right now: no writer of a FIFO is waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            _check_status(os.fstat(descriptor), name, limits)
            raw = file.read(limits.max_bytes + 1)
    except OSError as error:
        instead = stand_in(path)
        why = f": {error.strerror or error}" if instead is None else f" {instead}"
        raise InputError(f"{name}{why}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name!r} is no path: {error}") from error  # a NUL in it
    _check_bytes(len(raw), name, limits)
    return raw


def _check_status(status: os.stat_result, name: str, limits: DecodeLimits) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name} is a folder; name an image file in it")
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
        raise InputError(f"{name} is not a regular file; name an image file")
    _check_bytes(status.st_size, name, limits)


def _check_bytes(count: int, name: str, limits: DecodeLimits) -> None:
    if count == 0:
        raise InputError(f"{name} is empty (0 bytes); replace it or leave it out")
    if count > limits.max_bytes:
        raise InputError(
            f"{name} has more than {limits.max_bytes:,} bytes, the most allowed; "
            "save it smaller or leave it out"
        )


def _check_no_path(raw: bytes, name: str) -> None:
    """Raise InputError for the name of a file that is there."""
    if len(raw) < _LONGEST_PATH and b"\0" not in raw and os.access(raw, os.F_OK):
        raise InputError(
            f"{name} is a path in bytes, and bytes are what a file holds: pass os.fsdecode(path)"
        )


def _opened(raw: bytes, name: str) -> Image.Image:
    with _decoding(name):
        return Image.open(io.BytesIO(raw), formats=FORMATS)


def _bytes_behind(image: Image.Image, name: str, limits: DecodeLimits) -> bytes:
    """Check the file of an image that the caller opened and PIL has not decoded; b"" if none."""
    file = getattr(image, "fp", None)
    if file is None or image.format not in (*FORMATS, "MPO"):
        return b""
    with _decoding(name):
        place = file.tell()
        file.seek(0)
        raw: bytes = file.read(limits.max_bytes + 1)
        file.seek(place)
    _check_bytes(len(raw), name, limits)
    check_header(raw, name, limits)
    if is_netpbm(raw):
        check_netpbm(raw, name, limits)
    return raw


def _load_array(array: NDArray[Any], name: str, limits: DecodeLimits) -> Image.Image:
    if array.dtype != np.uint8:
        raise InputError(f"{name} must be a uint8 array with values 0..255, got {array.dtype}")
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] == 3):
        raise InputError(
            f"{name} must have shape [H,W,3] (RGB) or [H,W] (grey), got {list(array.shape)}; of an "
            "array that holds a file, pass array.tobytes()"
        )
    limits.check_size(array.shape[1], array.shape[0], name)
    return Image.fromarray(array).convert("RGB")


@contextmanager
def _upright(
    image: Image.Image, name: str, bits: int | None, limits: DecodeLimits, *, is_deep: bool
) -> Iterator[Image.Image]:
    limits.check_size(*image.size, name)
    _check_frames(image, name)
    with in_flight.hold(image.width * image.height, limits.max_pixels_at_once):
        with _decoding(name):
            image.load()
            turn = _turn(image)
        plain = eight_bits(image, bits, name)
        with _decoding(name):
            rgb = plain.convert("RGB")
            if turn is not None:
                rgb = rgb.transpose(turn)
        if is_deep:
            check_deep_colour(rgb, bits, name)
        rgb.info.clear()  # its EXIF orientation no longer holds
        yield rgb


def _check_frames(image: Image.Image, name: str) -> None:
    if image.format == "MPO":  # a photograph first, then its previews: no animation
        return
    with _decoding(name):
        frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise InputError(
            f"{name} is animated: it holds {frames} frames, and which one is meant is unknown; "
            "save that frame as an image of its own"
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(orientation(image))
    except (*_DAMAGE, TypeError, AttributeError):  # EXIF nobody can read is as good as none
        return None


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn what PIL raises into an InputError. Nothing but calls of PIL belongs inside."""
    try:
        with _quiet:
            yield
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name} is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image, or its header is "
            "damaged; convert it to PNG or leave it out"
        ) from error
    except Image.DecompressionBombError as error:  # PIL looked at the size before we could
        raise InputError(
            f"{name} has far more pixels than an image should; save it smaller or leave it out"
        ) from error
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{name} is truncated or damaged ({reason}); replace it or leave it out"
        ) from error


class _Quiet:
    """Keeps PIL's warnings inside, from any number of threads at once.

    `warnings.catch_warnings` alone would not do: two threads that leave in the order they
    entered put each other's filters back for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.close()


_quiet = _Quiet()

"""Images from anywhere, decoded with care: RGB pixels, or one sentence on what is wrong."""

import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag

from murank._exceptions import InputError

RawImage = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")

# No format above needs more for one pixel (PPM as text: five digits and a space, three times).
_MAX_BYTES_A_PIXEL = 18
_ROOM_FOR_METADATA = 2**26

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
    source: RawImage, *, max_pixels: int = MAX_PIXELS, name: str | None = None
) -> Image.Image:
    """Return the image as RGB, turned upright by its EXIF orientation, without metadata.

    Alpha is dropped and colour profiles are not applied, as `PIL.Image.Image.convert("RGB")` has
    it; of 16-bit values the high byte is kept. The source is neither changed nor closed.

    Parameters
    ----------
    source
        A path of a JPEG, PNG, BMP, WEBP or PPM file, a PIL image, or uint8 [H,W,3] RGB or [H,W]
        grey.
    max_pixels
        Larger images are refused before their pixels are decoded. PIL's own limit stays in force.
    name
        What messages call the image. None: the path, or "image".

    Raises
    ------
    InputError
        It cannot be read, is damaged, too large or empty, or holds several frames.
    """
    if isinstance(source, Image.Image):
        return _load_pil(source, name or "image", max_pixels)
    if isinstance(source, np.ndarray):
        return _load_array(source, name or "image", max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _load_file(Path(source), name or str(Path(source)), max_pixels)
    raise InputError(
        f"{name or 'image'} must be a path, a PIL image or a uint8 array, "
        f"got {type(source).__name__}"
    )


def _load_file(path: Path, name: str, max_pixels: int) -> Image.Image:
    # A handle, not the path, goes to PIL: it would map the file into memory, and a file that
    # shrinks meanwhile would kill the process.
    with _open_file(path, name, max_pixels) as file:
        with _decoding(name):
            image = Image.open(file, formats=FORMATS)
        with image:
            return _load_pil(image, name, max_pixels)


def _open_file(path: Path, name: str, max_pixels: int) -> IO[bytes]:
    try:
        status = path.stat()
        _check_status(status, name, max_pixels)
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name!r} is no path: {error}") from error  # a NUL in it


def _check_status(status: os.stat_result, name: str, max_pixels: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name} is a folder; name an image file in it")
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
        raise InputError(f"{name} is not a regular file; name an image file")
    if status.st_size == 0:
        raise InputError(f"{name} is empty (0 bytes); replace it or leave it out")
    if status.st_size > max_pixels * _MAX_BYTES_A_PIXEL + _ROOM_FOR_METADATA:
        raise InputError(
            f"{name} has {status.st_size:,} bytes, more than an image of {max_pixels:,} pixels "
            "can need; save it smaller or leave it out"
        )


def _load_array(array: NDArray[Any], name: str, max_pixels: int) -> Image.Image:
    if array.dtype != np.uint8:
        raise InputError(f"{name} must be a uint8 array with values 0..255, got {array.dtype}")
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] == 3):
        raise InputError(
            f"{name} must have shape [H,W,3] (RGB) or [H,W] (grey), got {list(array.shape)}"
        )
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    return Image.fromarray(array).convert("RGB")


def _load_pil(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(*image.size, name, max_pixels)
    _check_frames(image, name)
    with _decoding(name):
        image.load()
        turn = _turn(image)
    plain = _eight_bits(image, name)
    with _decoding(name):
        rgb = plain.convert("RGB")
        if turn is not None:
            rgb = rgb.transpose(turn)
    rgb.info.clear()  # its EXIF orientation no longer holds
    return rgb


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"{name} has no pixels: it is {width} x {height}; leave it out")
    if width * height > max_pixels:
        raise InputError(
            f"{name} is {width} x {height}, more than the {max_pixels:,} pixels allowed; "
            "save it smaller or leave it out"
        )


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
        return _TURNS.get(image.getexif().get(ExifTag.Orientation))
    except (*_DAMAGE, TypeError, AttributeError):  # EXIF nobody can read is as good as none
        return None


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit grey, which PIL would clip; PIL itself keeps the high byte of 16-bit colour."""
    if image.mode == "F":
        raise InputError(f"{name} holds floating point values; save it with 8 bits a channel")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise InputError(
            f"{name} holds grey values outside 0..65535; save it with 8 or 16 bits a channel"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))


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

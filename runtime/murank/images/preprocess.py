"""From an RGB image to the pixels that a graph takes; normalisation is inside the graphs."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from murank._exceptions import InputError
from murank.images.bits import check_bits
from murank.images.decode import RawImage, decoded
from murank.images.limits import DEFAULT_LIMITS, DecodeLimits

_MAX_SIDE = 4096
_MOST_RESIZED = 50_000_000  # pixels of the largest picture on the way
_IN_MANIFEST = ("height", "width", "resample", "shortest_edge")
_RESAMPLE: Mapping[str, Image.Resampling] = {one.name.lower(): one for one in Image.Resampling}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes pixels. Raises InputError for values that cannot be."""

    height: int  # what the graph takes
    width: int
    resample: str = "bicubic"  # a name of PIL.Image.Resampling, lower case
    shortest_edge: int | None = None  # resize the shorter side to this, then crop; None: no crop
    # Of the files, not of the model: no part of a manifest.
    bits: int | None = None  # of 16-bit grey values; None: all (see `load_image`)
    limits: DecodeLimits = field(default=DEFAULT_LIMITS, compare=False, repr=False)

    def __post_init__(self) -> None:
        for key in ("height", "width", "shortest_edge"):
            value = getattr(self, key)
            if value is None and key == "shortest_edge":
                continue
            # bool is an int to Python, and no size.
            if type(value) is not int or not 1 <= value <= _MAX_SIDE:
                raise InputError(
                    f"preprocessing: {key} must be an integer in 1..{_MAX_SIDE}, got {value!r}"
                )
        check_bits(self.bits)
        if not isinstance(self.resample, str) or self.resample not in _RESAMPLE:
            raise InputError(
                f"preprocessing: resample must be one of {', '.join(_RESAMPLE)}, "
                f"got {self.resample!r}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping that `from_json` reads."""
        return {key: getattr(self, key) for key in _IN_MANIFEST}

    @classmethod
    def from_json(cls, data: object) -> "Preprocessing":
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            A key is missing or unknown, or a value cannot be.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"preprocessing must be an object, got {type(data).__name__}")
        known = set(_IN_MANIFEST)
        for keys, problem in ((known - data.keys(), "lacks"), (data.keys() - known, "has unknown")):
            if keys:
                raise InputError(f"preprocessing {problem} {', '.join(sorted(map(str, keys)))}")
        return cls(**data)


@dataclass(frozen=True, eq=False)
class ReadyImage:
    """What a graph needs of an image: its original may be forgotten."""

    pixels: NDArray[np.uint8]  # [3,H,W]
    how: Preprocessing  # what they were made by

    def __post_init__(self) -> None:
        wanted = (3, self.how.height, self.how.width)
        if self.pixels.dtype != np.uint8 or self.pixels.shape != wanted:
            raise InputError(
                f"the pixels of a ReadyImage must be uint8 {list(wanted)}, "
                f"got {self.pixels.dtype} {list(self.pixels.shape)}"
            )

    @cached_property
    def key(self) -> str:
        """Hash of the pixels; taken once."""
        return pixels_key(self.pixels)


ImageSource = RawImage | ReadyImage


def pixels_key(pixels: NDArray[np.uint8]) -> str:
    """Return the hash of one image's pixels [3,H,W] and their shape."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def prepare(source: ImageSource, how: Preprocessing, *, name: str | None = None) -> ReadyImage:
    """Decode and resize an image; one that is ready for the same preprocessing stays as it is.

    Parameters
    ----------
    source
        What `load_image` takes, or a ReadyImage.
    how
        Size, filter, whether the aspect is kept, and how files are decoded.
    name
        What messages call the image. None: the path, or "image".

    Raises
    ------
    InputError
        `load_image` or `to_pixels` refuses it, or it is ready for another preprocessing.
    """
    if isinstance(source, ReadyImage):
        if source.how != how:
            raise InputError(
                f"{name or 'image'} is ready for {source.how}, but {how} is needed and its "
                "original is gone; pass the original"
            )
        return source
    if name is None and isinstance(source, (str, os.PathLike)):
        name = str(Path(source))
    with decoded(source, bits=how.bits, limits=how.limits, name=name) as image:
        return ReadyImage(to_pixels(image, how, name=name), how)


def to_pixels(
    image: Image.Image, how: Preprocessing, *, name: str | None = None
) -> NDArray[np.uint8]:
    """Resize an RGB image, and crop its centre where `how` resizes by the shortest edge.

    Same pixels as the PIL-based image processors of transformers: the longer side is rounded
    down, a crop that reaches beyond the image is filled with zeros.

    Parameters
    ----------
    image
        RGB, as `load_image` returns it.
    how
        Size, filter, and whether the aspect is kept.
    name
        What messages call the image. None: "image".

    Returns
    -------
    NDArray
        uint8 [3, how.height, how.width], contiguous.

    Raises
    ------
    InputError
        The image is not RGB, or so elongated that resizing would make it huge.
    """
    if image.mode != "RGB":
        raise InputError(
            f"{name or 'image'} must be RGB, got {image.mode}; use murank.images.load_image"
        )
    width, height = _resized(image, how)
    _check_growth(image, width, height, name or "image")
    resized = image.resize((width, height), _RESAMPLE[how.resample])
    left, top = (width - how.width) // 2, (height - how.height) // 2
    cropped = resized.crop((left, top, left + how.width, top + how.height))
    return np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1))


def _resized(image: Image.Image, how: Preprocessing) -> tuple[int, int]:
    """Width and height before the crop."""
    if how.shortest_edge is None:
        return how.width, how.height
    width, height = image.size
    longest_edge = int(how.shortest_edge * max(width, height) / min(width, height))
    if width <= height:
        return how.shortest_edge, longest_edge
    return longest_edge, how.shortest_edge


def _check_growth(image: Image.Image, width: int, height: int, name: str) -> None:
    # PIL resizes the width first: the largest picture on the way is the new width by the taller
    # of both heights. A line of 1 x 50,000,000 pixels would need gigabytes.
    largest = width * max(image.height, height)
    if largest > max(_MOST_RESIZED, image.width * image.height):
        raise InputError(
            f"{name} is {image.width} x {image.height}, too elongated to be resized to "
            f"{width} x {height}; crop it or leave it out"
        )

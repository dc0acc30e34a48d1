"""What callers hand in, checked: lists of images, whole numbers, numbers in a range."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from murank._exceptions import InputError
from murank.checks.text import shown
from murank.images import ImageSource, Preprocessing, ReadyImage, prepare
from murank_kernels.checks.host_array import NO_ARRAY, copied_to_host, host_array

_ONE_IMAGE = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, ReadyImage)


def check_images(images: object, name: str) -> None:
    """Raise InputError unless it is a list of images: something with a length and places.

    One array [H,W,3] would be taken row by row for H grey images, so that of arrays only a batch
    uint8 [B,H,W,3] is a list.
    """
    if isinstance(images, np.ndarray):
        if images.ndim == 1 and images.dtype.kind in "OU":
            return
        if images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8:
            return
        what = f"one array {images.dtype} {list(images.shape)}"
    elif isinstance(images, _ONE_IMAGE):
        what = f"one {type(images).__name__}"
    elif isinstance(images, Mapping) or not (
        hasattr(images, "__len__") and hasattr(images, "__getitem__")
    ):
        what = type(images).__name__
    else:
        return
    raise InputError(
        f"{name} must be a list of images (paths, bytes, PIL images, uint8 RGB arrays), got "
        f"{what}; put one image into a list: [image]"
    )


def source_name(source: object, name: str) -> str | None:
    """Return what messages call an image; None: its path does."""
    return None if isinstance(source, (str, os.PathLike)) else name


def called(source: object, name: str) -> str:
    """Return what messages call an image that was decoded: its path, if it is one."""
    return os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else name


def ready_images(images: Sequence[ImageSource], how: Preprocessing, name: str) -> list[ReadyImage]:
    """Decode and resize a list of images."""
    check_images(images, name)
    return [
        prepare(image, how, name=source_name(image, f"{name}[{place}]"))
        for place, image in enumerate(images)
    ]


def as_array(value: object, name: str) -> NDArray[Any]:
    """Return anything array-like as an array; InputError if it is none, as lists of any lengths."""
    try:
        return host_array(copied_to_host(value))
    except NO_ARRAY as error:
        raise InputError(f"{name} cannot be read as an array: {error}") from error


def take_arrays(instance: object) -> None:
    """Turn the fields of a frozen dataclass that are lists, tensors or columns into arrays."""
    for name, value in vars(instance).items():
        is_other = hasattr(value, "__array__") and not isinstance(value, np.generic | np.ndarray)
        if is_other or isinstance(value, list):
            object.__setattr__(instance, name, as_array(value, name))


def check_whole(value: object, name: str, *, least: int = 1) -> int:
    """Return a whole number of at least `least`; InputError if it is none. True is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {shown(value)}")
    return int(value)


def check_number(value: object, name: str, *, above: float = -math.inf) -> float:
    """Return a finite number above `above`; InputError if it is none."""
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not is_number:
        raise InputError(f"{name} must be a number, got {shown(value)}")
    number = float(cast("Any", value))
    if not above < number or math.isnan(number):
        raise InputError(f"{name} must be a number above {above:g}, got {shown(value)}")
    return number


def check_choice(value: object, name: str, choices: Iterable[str]) -> None:
    """Raise InputError unless it is one of these texts."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}, got {shown(value)}")

"""What one item becomes in the file."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
AttributeValue = str | int | float | bool


@dataclass(frozen=True)
class Picture:
    """What the MLLM is asked about: a crop, or its vision tokens."""

    quality: float  # large = better: of a track the best few are kept
    key: str | None  # of the crop at the MLLM's size
    jpeg: bytes | None
    tokens: bytes | None


@dataclass(frozen=True)
class Shot:
    """One item, ready to be stored."""

    id: str
    camera: int
    time: float  # seconds since the epoch
    track: str | None
    subject: str | None
    attributes: Mapping[str, AttributeValue]
    content: bytes  # a hash of all that it is: the same item again is no news
    feature: F32  # [D] unit row
    picture: Picture | None


@dataclass(frozen=True)
class UnitRecord:
    """A unit as the file has it."""

    unit: int
    track: str | None
    camera: int
    first: float
    last: float
    shots: int


@dataclass(frozen=True)
class UnitTable:
    """All units as the file has them, by number; a gallery of a million is not made of objects."""

    numbers: NDArray[np.int64]  # [n] ascending
    cameras: NDArray[np.int64]  # [n]
    first: NDArray[np.float64]  # [n] seconds since the epoch
    last: NDArray[np.float64]  # [n]
    shots: NDArray[np.int64]  # [n] how many each has

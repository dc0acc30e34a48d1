"""What an image may cost: counted from its header, before anything is decoded."""

from dataclasses import asdict, dataclass
from typing import Any

from murank._exceptions import InputError


@dataclass(frozen=True)
class DecodeLimits:
    """Images beyond these are refused. The defaults leave much room around a person crop.

    Raises InputError for values that cannot be.
    """

    max_bytes: int = 32 << 20  # of the file
    max_side: int = 8192  # pixels, width and height each
    max_aspect: int = 100  # longer side over shorter
    max_pixels: int = 25_000_000
    max_scans: int = 32  # of a JPEG: each goes over all pixels; progressive ones have about 10
    max_parts: int = 500  # segments of a JPEG, chunks of a PNG beside the pixels
    max_pixels_at_once: int = 32_000_000  # of all threads; a larger image is decoded alone

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if type(value) is not int or not 1 <= value < 1 << 40:  # bool is an int to Python
                raise InputError(f"{key} must be a whole number of at least 1, got {value!r:.80}")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)

    def check_size(self, width: int, height: int, name: str) -> None:
        """Raise InputError unless an image of that size may be decoded."""
        if width < 1 or height < 1:
            raise InputError(f"{name} has no pixels: it is {width} x {height}; leave it out")
        for limit, share in (
            (f"a side of {self.max_side:,}", max(width, height) / self.max_side),
            (f"{self.max_pixels:,} pixels", width * height / self.max_pixels),
            (
                f"an aspect of {self.max_aspect:,} : 1",
                max(width, height) / min(width, height) / self.max_aspect,
            ),
        ):
            if share > 1:
                raise InputError(
                    f"{name} is {width} x {height}, more than {limit}, the most allowed; "
                    "crop it, save it smaller or leave it out"
                )


DEFAULT_LIMITS = DecodeLimits()

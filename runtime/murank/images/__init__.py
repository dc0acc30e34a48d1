"""Images: decoded with care, and resized exactly as the model was trained.

Imports checks, machine, files.
"""

from murank.images.bits import check_bits
from murank.images.decode import decoded, load_image
from murank.images.limits import DEFAULT_LIMITS, DecodeLimits
from murank.images.preprocess import ImageSource, Preprocessing, ReadyImage, prepare, to_pixels

__all__ = [
    "DEFAULT_LIMITS",
    "DecodeLimits",
    "ImageSource",
    "Preprocessing",
    "ReadyImage",
    "check_bits",
    "decoded",
    "load_image",
    "prepare",
    "to_pixels",
]

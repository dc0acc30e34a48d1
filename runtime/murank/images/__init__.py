"""Images: decoded with care, and resized exactly as the model was trained."""

from murank.images.decode import FORMATS, MAX_PIXELS, load_image
from murank.images.preprocess import ImageSource, Preprocessing, ReadyImage, prepare, to_pixels

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "ImageSource",
    "Preprocessing",
    "ReadyImage",
    "load_image",
    "prepare",
    "to_pixels",
]

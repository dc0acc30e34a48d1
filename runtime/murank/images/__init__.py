"""Images: decoded with care, and resized exactly as the model was trained."""

from murank.images.decode import FORMATS, MAX_PIXELS, ImageSource, load_image
from murank.images.preprocess import Preprocessing, to_pixels

__all__ = ["FORMATS", "MAX_PIXELS", "ImageSource", "Preprocessing", "load_image", "to_pixels"]

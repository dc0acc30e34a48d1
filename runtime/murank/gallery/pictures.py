"""The pictures of a track that are kept: the largest and sharpest, as JPEG."""

import io

import numpy as np
from PIL import Image

_QUALITY = 92
_LONGEST = 512  # pixels of a kept picture's longer side: more than any MLLM here is shown


def as_jpeg(image: Image.Image) -> bytes:
    """Return an RGB image as it is kept, no larger than needed, without metadata."""
    if max(image.size) > _LONGEST:
        share = _LONGEST / max(image.size)
        size = [max(1, round(side * share)) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def quality(image: Image.Image) -> float:
    """Return how good a picture of a person it is: size times contrast of neighbouring pixels.

    Compared among the pictures of one track alone, which show one person before one camera.
    """
    small = np.asarray(image.convert("L").resize((32, 64), Image.Resampling.BOX), np.float32)
    edges = np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean()
    return float(np.sqrt(image.width * image.height) * (1 + edges))


def opened(jpeg: bytes) -> Image.Image:
    """Return a kept picture."""
    image = Image.open(io.BytesIO(jpeg), formats=["JPEG"])
    image.load()
    return image

"""Images made to look as other cameras might take them: a guard against learning one place's light.

What LoRA learns from one domain may lean on its exact colours. Light, colour cast, haze, sharpness,
noise and a thing in front are drawn anew for each image and step.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SELDOM = 0.35  # share of the images that are blurred, and of those with something in front


def jittered(
    pixels: NDArray[np.uint8], strength: float, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return an image [3,H,W] changed; `strength` 0 leaves it as it is, 1 changes it much."""
    if strength == 0:
        return pixels
    if random.random() < _SELDOM:
        pixels = _coarser(pixels, 1 - strength * random.uniform(0.2, 0.65))
    x = pixels.astype(np.float32) / 255
    light = np.exp(strength * random.uniform(-0.9, 0.25))
    cast = 1 + strength * random.uniform(-0.25, 0.25, (3, 1, 1))
    x = x * (light * cast).astype(np.float32) + np.float32(strength * random.uniform(-0.03, 0.08))
    x = np.clip(x, 0.001, 1) ** np.float32(np.exp(strength * random.uniform(-0.3, 0.3)))
    noise = strength * random.uniform(0, 0.06)
    x += np.float32(noise) * random.standard_normal(x.shape, np.float32)
    if random.random() < _SELDOM * strength:
        _hide_part(x, random)
    changed: NDArray[np.uint8] = (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
    return changed


def _coarser(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Lose the detail that an image of `share` of the size would not have."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    small = max(1, round(image.width * share)), max(1, round(image.height * share))
    coarse = image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(coarse).transpose(2, 0, 1)


def _hide_part(x: NDArray[np.float32], random: np.random.Generator) -> None:
    _, height, width = x.shape
    high, wide = (int(side * random.uniform(0.1, 0.5)) + 1 for side in (height, width))
    top, left = random.integers(height - high + 1), random.integers(width - wide + 1)
    x[:, top : top + high, left : left + wide] = random.random((3, 1, 1), np.float32)

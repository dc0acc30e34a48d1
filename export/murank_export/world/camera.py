"""What a camera does to what it sees: light, colour, sharpness, noise."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from murank_export.world.body import HEIGHT, WIDTH


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera of a domain: where it stands, and how its pictures look."""

    background: NDArray[np.uint8]  # [H,W,3], larger than a crop at drawing size
    view: float  # direction from which it sees people, radians
    spread: float  # of that direction
    elevation: float  # 0: eye level, 1: steeply from above
    gain: tuple[float, float, float]  # of R, G, B
    offset: float  # haze: added to all channels
    gamma: float
    saturation: float
    blur: float  # sigma, pixels of the crop
    resolution: float  # share of the crop's size at which it is recorded
    noise: float  # standard deviation of a pixel's value in [0,1]
    quality: int  # of its JPEG files


def expose(scene: Image.Image, camera: Camera, random: np.random.Generator) -> Image.Image:
    """Return the crop that a camera records of a scene drawn at any larger size."""
    small = max(8, round(WIDTH * camera.resolution)), max(16, round(HEIGHT * camera.resolution))
    image = scene.resize(small, Image.Resampling.BOX)
    if small != (WIDTH, HEIGHT):
        image = image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    sigma = camera.blur * random.uniform(0.7, 1.3)
    if sigma > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(sigma))
    pixels = np.asarray(image, np.float32) / 255
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + camera.saturation * (pixels - grey)
    flicker = np.exp(0.06 * random.standard_normal())
    pixels = pixels * (np.asarray(camera.gain, np.float32) * flicker) + camera.offset
    pixels *= _uneven_light(random)
    pixels = np.clip(pixels, 0.001, 1) ** camera.gamma
    pixels += camera.noise * random.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8))


def _uneven_light(random: np.random.Generator) -> NDArray[np.float32]:
    """Light that falls off to one side: [H,W,1] around 1."""
    down, across = 0.22 * random.standard_normal(2)
    y = np.linspace(-0.5, 0.5, HEIGHT, dtype=np.float32)[:, None, None]
    x = np.linspace(-0.5, 0.5, WIDTH, dtype=np.float32)[None, :, None]
    light: NDArray[np.float32] = np.clip(1 + down * y + across * x, 0.6, 1.4).astype(np.float32)
    return light

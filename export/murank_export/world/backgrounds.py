"""What stands behind people: a picture for each camera, of which every crop shows a part."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from murank_export.world.body import HEIGHT, SCALE, WIDTH

SIZE = (WIDTH * SCALE * 2, HEIGHT * SCALE + 24 * SCALE)  # width, height: room to move about in


def draw_background(random: np.random.Generator, kind: str) -> NDArray[np.uint8]:
    """Return a picture [H,W,3] of one of `BACKGROUNDS`."""
    image = _soft(random)
    BACKGROUNDS[kind](random, image)
    return np.asarray(image)


def cut(random: np.random.Generator, background: NDArray[np.uint8]) -> Image.Image:
    """Return a random part of a background, of the size that figures are drawn at."""
    height, width = HEIGHT * SCALE, WIDTH * SCALE
    top = int(random.integers(background.shape[0] - height + 1))
    left = int(random.integers(background.shape[1] - width + 1))
    return Image.fromarray(background[top : top + height, left : left + width])


def _soft(random: np.random.Generator) -> Image.Image:
    """Return a colour that changes slowly over the picture."""
    colour = random.uniform(0.25, 0.75) + 0.05 * random.standard_normal(3)
    coarse = (
        colour + 0.1 * random.standard_normal((5, 4, 1)) + 0.03 * random.standard_normal((5, 4, 3))
    )
    small = Image.fromarray((np.clip(coarse, 0, 1) * 255).astype(np.uint8))
    return small.resize(SIZE, Image.Resampling.BICUBIC)


def _plain(random: np.random.Generator, image: Image.Image) -> None:
    _floor(random, image)


def _rooms(random: np.random.Generator, image: Image.Image) -> None:
    pen, (width, height) = ImageDraw.Draw(image), SIZE
    for _ in range(int(random.integers(3, 9))):
        x, y = int(random.integers(width)), int(random.integers(int(0.7 * height)))
        wide = int(random.integers(width // 16, width // 4))
        high = int(random.integers(height // 12, height // 2))
        pen.rectangle((x, y, x + wide, y + high), fill=_colour(random))
    _floor(random, image)


def _foliage(random: np.random.Generator, image: Image.Image) -> None:
    pen, (width, height) = ImageDraw.Draw(image), SIZE
    for _ in range(260):
        x, y = int(random.integers(width)), int(random.integers(int(0.85 * height)))
        size = int(random.integers(4, 16))
        green = int(random.integers(50, 170))
        leaf = int(0.6 * green + random.integers(-20, 20)), green, int(0.35 * green)
        pen.ellipse((x - size, y - size, x + size, y + size // 2), fill=leaf)
    _floor(random, image)


def _bricks(random: np.random.Generator, image: Image.Image) -> None:
    pen, (width, height) = ImageDraw.Draw(image), SIZE
    long, high = int(random.integers(24, 44)), int(random.integers(10, 18))
    base = random.integers(70, 190, 3)
    for row, y in enumerate(range(0, height, high)):
        for x in range(-(row % 2) * long // 2, width, long):
            shade = base + random.integers(-18, 19, 3)
            fill = tuple(int(v) for v in np.clip(shade, 0, 255))
            pen.rectangle((x, y, x + long - 3, y + high - 3), fill=fill)
    _floor(random, image)


def _floor(random: np.random.Generator, image: Image.Image) -> None:
    width, height = SIZE
    horizon = int(height * random.uniform(0.45, 0.9))
    floor = image.crop((0, horizon, width, height))
    shade = Image.new("RGB", floor.size, _colour(random))
    image.paste(Image.blend(floor, shade, 0.5), (0, horizon))


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    """Walls and furniture are mostly muted."""
    grey = random.uniform(40, 215)
    red, green, blue = (int(v) for v in np.clip(grey + 28 * random.standard_normal(3), 0, 255))
    return red, green, blue


BACKGROUNDS: Mapping[str, Callable[[np.random.Generator, Image.Image], None]] = {
    "plain": _plain, "rooms": _rooms, "foliage": _foliage, "bricks": _bricks,
}  # fmt: skip

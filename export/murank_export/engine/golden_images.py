"""Pictures to measure an export by: seeded colour noise of all scales, nobody is on them."""

import numpy as np
from numpy.typing import NDArray

SEED = 20240616


HEIGHT, WIDTH = 171, 83  # of no encoder: resizing is measured with the rest


def golden_images(count: int, seed: int = SEED) -> NDArray[np.uint8]:
    """Return [count,3,HEIGHT,WIDTH] uint8; every second one resembles the one before."""
    height, width = HEIGHT, WIDTH
    random = np.random.default_rng(seed)
    images = np.zeros((count, 3, height, width))
    for index in range(count):
        if index % 2 and index > 1:
            images[index] = images[index - 1] + 12 * random.standard_normal((3, height, width))
            continue
        for scale in (2, 5, 14):
            coarse = random.standard_normal((3, scale, scale))
            rows = np.arange(height) * scale // height
            columns = np.arange(width) * scale // width
            images[index] += 40 * coarse[:, rows[:, None], columns[None]]
        images[index] += 128
    return np.clip(images, 0, 255).astype(np.uint8)

"""Our pixels against the PIL-based image processors of transformers."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pil_processors import (
    BitImageProcessor,
    CLIPImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)

from murank.images import Preprocessing, to_pixels

# Narrow, wide, square, odd, smaller than the crop, and sides whose ratio rounds down.
SIZES = [(64, 128), (131, 57), (50, 50), (33, 71), (5, 9), (9, 4), (100, 201), (7, 300)]


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels_of(processor: Any, image: Image.Image) -> NDArray[Any]:
    batch = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
    pixels: NDArray[Any] = batch["pixel_values"][0]
    return pixels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [CLIPImageProcessor, BitImageProcessor])
@pytest.mark.parametrize(
    ("shortest_edge", "height", "width"), [(32, 32, 32), (36, 32, 32), (31, 24, 17), (20, 33, 40)]
)
def test_shortest_edge_and_centre_crop(
    kind: Any, size: tuple[int, int], shortest_edge: int, height: int, width: int
) -> None:
    processor = kind(
        size={"shortest_edge": shortest_edge}, crop_size={"height": height, "width": width}
    )
    how = Preprocessing(height, width, "bicubic", shortest_edge)
    wanted = pixels_of(processor, picture(*size))
    assert wanted.dtype == np.uint8
    np.testing.assert_array_equal(to_pixels(picture(*size), how), wanted)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "resample"),
    [(ViTImageProcessor, "bilinear"), (SiglipImageProcessor, "bicubic")],
)
def test_exact_resize(kind: Any, resample: str, size: tuple[int, int]) -> None:
    processor = kind(size={"height": 40, "width": 23}, resample=Image.Resampling[resample.upper()])
    wanted = pixels_of(processor, picture(*size))
    assert wanted.dtype == np.uint8
    np.testing.assert_array_equal(
        to_pixels(picture(*size), Preprocessing(40, 23, resample)), wanted
    )

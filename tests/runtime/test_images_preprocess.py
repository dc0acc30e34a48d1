import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from murank import InputError
from murank.images import Preprocessing, load_image, to_pixels


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def planes(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize(
    "resample", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
)
def test_exact_resize_is_pils(resample: str) -> None:
    image = picture(31, 47)
    pixels = to_pixels(image, Preprocessing(28, 14, resample=resample))
    wanted = image.resize((14, 28), Image.Resampling[resample.upper()])
    np.testing.assert_array_equal(pixels, planes(wanted))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_bicubic_is_the_default() -> None:
    wanted = picture(31, 47).resize((14, 28), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(to_pixels(picture(31, 47), Preprocessing(28, 14)), planes(wanted))


def test_the_right_size_is_left_alone() -> None:
    np.testing.assert_array_equal(
        to_pixels(picture(14, 28), Preprocessing(28, 14)), planes(picture(14, 28))
    )


def test_shortest_edge_crops_the_centre() -> None:
    image = picture(8, 12)
    pixels = to_pixels(image, Preprocessing(6, 8, shortest_edge=8))
    np.testing.assert_array_equal(pixels, planes(image)[:, 3:9])


def test_a_crop_beyond_the_image_is_zero() -> None:
    image = picture(4, 4)
    pixels = to_pixels(image, Preprocessing(7, 4, shortest_edge=4))
    np.testing.assert_array_equal(pixels[:, 2:6], planes(image))
    assert not pixels[:, :2].any()
    assert not pixels[:, 6:].any()


@pytest.mark.parametrize(("width", "height"), [(1, 300_000), (300_000, 1)])
def test_a_line_cannot_fill_the_memory(width: int, height: int) -> None:
    line = Image.new("RGB", (width, height))
    with pytest.raises(InputError, match=f"^a.png is {width} x {height}, too elongated"):
        to_pixels(line, Preprocessing(224, 224, shortest_edge=224), name="a.png")


def test_a_column_is_refused_before_its_rows_are_widened() -> None:
    column = Image.new("RGB", (1, 300_000))
    with pytest.raises(InputError, match="too elongated"):
        to_pixels(column, Preprocessing(256, 224))
    assert to_pixels(column.rotate(90, expand=True), Preprocessing(4, 4)).shape == (3, 4, 4)


def test_only_rgb() -> None:
    with pytest.raises(InputError, match=r"must be RGB, got L; use murank\.images\.load_image"):
        to_pixels(picture(4, 4).convert("L"), Preprocessing(4, 4))
    to_pixels(load_image(picture(4, 4).convert("L")), Preprocessing(4, 4))


@pytest.mark.parametrize(
    "how", [Preprocessing(256, 128), Preprocessing(224, 224, "bilinear", shortest_edge=256)]
)
def test_json_round_trip(how: Preprocessing) -> None:
    assert Preprocessing.from_json(json.loads(json.dumps(how.to_json()))) == how


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, r"height must be an integer in 1\.\.4096, got 0"),
        ({"height": True}, "height must be an integer .* got True"),
        ({"width": 224.0}, "width must be an integer .* got 224.0"),
        ({"width": 5000}, "width must be an integer"),
        ({"width": None}, "width must be an integer .* got None"),
        ({"shortest_edge": -1}, "shortest_edge"),
        ({"resample": "BICUBIC"}, "resample must be one of nearest, .*bicubic.* got 'BICUBIC'"),
        ({"resample": 3}, "resample must be one of"),
        ({"resample": ["box"]}, "resample must be one of"),
        ({"crop": 3}, "has unknown crop"),
    ],
)
def test_bad_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^preprocessing:? {message}"):
        Preprocessing.from_json(Preprocessing(256, 128).to_json() | changes)


def test_bad_json() -> None:
    with pytest.raises(InputError, match="preprocessing lacks resample, shortest_edge, width"):
        Preprocessing.from_json({"height": 3})
    others: list[object] = [None, [], "bicubic"]
    for data in others:
        with pytest.raises(InputError, match="preprocessing must be an object"):
            Preprocessing.from_json(data)


def test_the_constructor_checks_too() -> None:
    with pytest.raises(InputError, match="height must be an integer"):
        Preprocessing(0, 128)

"""What callers hand in by mistake is one sentence that names the argument."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from murank import InputError
from murank.images import Preprocessing
from murank.images.arguments import check_images, check_number, check_whole, ready_images

ARRAY = np.zeros((4, 3, 3), np.uint8)
HOW = Preprocessing(4, 2)


@pytest.mark.parametrize(
    "images",
    [
        ARRAY, ARRAY[..., 0], ARRAY.astype(np.float32), np.zeros((2, 3, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 3)), Image.new("RGB", (2, 2)), "a.png", b"a.png", None, 3, {}, {"a": 1},
        {"a.png"}, (one for one in ["a.png"]), iter(["a.png"]),
    ],
)  # fmt: skip
def test_what_is_no_list_of_images(images: Any) -> None:
    with pytest.raises(InputError, match="candidates"):
        check_images(images, "candidates")


def test_lists_of_images() -> None:
    batch = np.stack([ARRAY, ARRAY + 9])
    for images in ([], (), [ARRAY], (ARRAY,), batch, np.array(["a.png"]), range(0)):
        check_images(images, "images")
    found = ready_images(batch, HOW, "images")  # type: ignore[arg-type]
    assert [int(one.pixels.max()) for one in found] == [0, 9]


@pytest.mark.parametrize(
    "image",
    [None, 3, io.BytesIO(b"a"), ARRAY.astype(np.float32), ARRAY.transpose(2, 0, 1)[:, :, :2],
     np.zeros((4, 4, 4), np.uint8), np.zeros((3, 8, 9), np.uint8), ARRAY[0, 0]],
)  # fmt: skip
def test_the_place_of_a_bad_image_is_named(image: Any) -> None:
    with pytest.raises(InputError, match=r"^candidates\[1\] must"):
        ready_images([ARRAY, image], HOW, "candidates")


@pytest.mark.parametrize("value", [2.5, 0, -1, True, "3", None, float("nan"), [1], np.float64(2)])
def test_whole_numbers(value: Any) -> None:
    with pytest.raises(InputError, match="top_k"):
        check_whole(value, "top_k")
    assert check_whole(np.int64(3), "top_k") == 3


@pytest.mark.parametrize("value", [float("nan"), "0.5", None, True, [0.5], 1j, 0, -2.0])
def test_numbers(value: Any) -> None:
    with pytest.raises(InputError, match="deadline_ms"):
        check_number(value, "deadline_ms", above=0)
    assert check_number(np.float32(0.5), "deadline_ms", above=0) == 0.5

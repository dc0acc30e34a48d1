"""Images that are ready: what stays of them, and who takes them."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from murank import InputError
from murank.engine.pair_orders import pixels_of
from murank.images import (
    DecodeLimits,
    Preprocessing,
    ReadyImage,
    decoded,
    load_image,
    prepare,
    preprocess,
    to_pixels,
)
from murank.images import ahead as _images
from murank.images.ahead import Unreadable, ready_ahead

HOW = Preprocessing(8, 4, shortest_edge=8)
OTHER = Preprocessing(8, 4)


def write_picture(file: Path, width: int = 30, height: int = 60) -> Path:
    random = np.random.default_rng(width + height)
    Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(file)
    return file


def test_pixels_are_those_of_the_two_steps(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "a.png")
    wanted = to_pixels(load_image(file), HOW)
    for source in (file, str(file), load_image(file), np.asarray(load_image(file))):
        ready = prepare(source, HOW)
        assert ready.how == HOW
        np.testing.assert_array_equal(ready.pixels, wanted)


def test_what_is_ready_stays_as_it_is(tmp_path: Path) -> None:
    ready = prepare(write_picture(tmp_path / "a.png"), HOW)
    assert prepare(ready, Preprocessing.from_json(HOW.to_json())) is ready
    with pytest.raises(InputError, match=r"^b is ready for Preprocessing\(height=8.*original"):
        prepare(ready, OTHER, name="b")


def test_the_engine_takes_them(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "a.png")
    ready = prepare(file, HOW)
    one, other = pixels_of([ready, file], HOW, "images")
    assert one is ready.pixels
    np.testing.assert_array_equal(one, other)
    with pytest.raises(InputError, match=r"^images\[0\] is ready for"):
        pixels_of([ready], OTHER, "images")


def test_messages_name_the_image(tmp_path: Path) -> None:
    long = write_picture(tmp_path / "long.png", 1, 8_000)
    how = Preprocessing(256, 256, shortest_edge=256, limits=DecodeLimits(max_aspect=8_000))
    with pytest.raises(InputError, match=f"^{long} is 1 x 8000, too elongated"):
        prepare(str(long), how)
    with pytest.raises(InputError, match=r"^the query is 1 x 8000"):
        prepare(long, how, name="the query")
    with pytest.raises(InputError, match=r"^image is 1 x 8000"):
        prepare(load_image(long, limits=how.limits), how)
    with pytest.raises(InputError, match=f"^{tmp_path / 'no.png'}: No such file"):
        prepare(tmp_path / "no.png", how)


@pytest.mark.parametrize(
    "pixels", [np.zeros((3, 4, 8), np.uint8), np.zeros((3, 8, 4)), np.zeros((8, 4), np.uint8)]
)
def test_pixels_fit_the_preprocessing(pixels: Any) -> None:
    with pytest.raises(InputError, match=r"must be uint8 \[3, 8, 4\], got"):
        ReadyImage(pixels, HOW)


def test_few_whole_images_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    alive: list[int] = []
    counts: list[int] = []

    def forget(_image: object) -> None:
        with lock:
            alive.pop()

    @contextmanager
    def counted(*arguments: Any, **options: Any) -> Iterator[Image.Image]:
        with decoded(*arguments, **options) as image:
            weakref.finalize(image, forget, None)
            with lock:
                alive.append(1)
                counts.append(len(alive))
            yield image

    monkeypatch.setattr(preprocess, "decoded", counted)
    monkeypatch.setattr(_images, "decoding_threads", lambda: 3)
    paths = [write_picture(tmp_path / f"{row}.png") for row in range(12)]
    for row in range(1, 12, 3):  # a refusal keeps no image, either
        write_picture(paths[row], 1, 8_000)
    how = Preprocessing(256, 256, shortest_edge=256, limits=DecodeLimits(max_aspect=8_000))
    found = [one for batch in ready_ahead([paths[:6], paths[6:]], how) for one in batch]
    assert [isinstance(one, Unreadable) for one in found] == 4 * [False, True, False]
    assert len(counts) == 12
    assert max(counts) <= 3
    assert alive == []

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from murank import InputError
from murank_export.adapt.jitter import jittered
from murank_export.adapt.train_settings import TrainSettings


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(40, 216, (3, 56, 28)).astype(np.uint8)


def test_strength_nought_changes_nothing(image: NDArray[np.uint8]) -> None:
    random = np.random.default_rng(0)
    assert jittered(image, 0, random) is image
    assert random.random() == np.random.default_rng(0).random()  # nor draws anything


def test_the_same_random_numbers_give_the_same_image(image: NDArray[np.uint8]) -> None:
    one, other, third = (jittered(image, 1, np.random.default_rng(s)) for s in (5, 5, 6))
    assert one.dtype == np.uint8
    assert one.shape == image.shape
    np.testing.assert_array_equal(one, other)
    assert (one != third).any()


def test_more_strength_changes_more(image: NDArray[np.uint8]) -> None:
    def change(strength: float) -> float:
        draws = [jittered(image, strength, np.random.default_rng(s)) for s in range(60)]
        return float(np.mean([np.abs(one.astype(float) - image).mean() for one in draws]))

    little, some, much = (change(strength) for strength in (0.1, 0.5, 1.0))
    assert 0 < little < some < much


def test_the_original_stays_as_it_is(image: NDArray[np.uint8]) -> None:
    before = image.copy()
    for seed in range(20):
        jittered(image, 1, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_bad_strength(value: float) -> None:
    with pytest.raises(InputError, match=r"jitter must be in 0\.\.1"):
        TrainSettings(Path(), Path(), Path(), jitter=value)


def test_it_decides_the_outcome() -> None:
    assert TrainSettings(Path(), Path(), Path(), jitter=0.5).deciding()["jitter"] == 0.5

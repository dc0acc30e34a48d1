from collections.abc import Iterator
from dataclasses import fields
from itertools import product
from math import pi

import numpy as np
import pytest
from numpy.typing import NDArray

from murank import InputError
from murank_export.world import TRAINING, UNSEEN, Domain, domain_names, domains, make_domain
from murank_export.world.backgrounds import BACKGROUNDS, SIZE, cut, draw_background
from murank_export.world.camera import Camera
from murank_export.world.domains import factors_of

ORDINARY = (TRAINING, "broad-0", "broad-1")
EVERY = (*ORDINARY, *UNSEEN)
KINDS = ("occluders", "backgrounds")
# Ranges whose value a camera holds as it is.
PLAIN = ("offset", "gamma", "saturation", "blur", "resolution", "noise", "elevation", "spread")


def drawn(name: str, seeds: int = 10) -> Iterator[Domain]:
    return (make_domain(name, seed=seed) for seed in range(seeds))


def values_of(domain: Domain) -> dict[str, list[float]]:
    """What was drawn from each range: a value for each camera, or one for the place."""
    found: dict[str, list[float]] = {
        key: [getattr(camera, key) for camera in domain.cameras] for key in (*PLAIN, "quality")
    }
    gains = [np.array(camera.gain) for camera in domain.cameras]
    found["gain"] = [float(gain.mean()) for gain in gains]
    found["cast"] = [float(np.abs(gain / gain.mean() - 1).max()) for gain in gains]
    return found | {"occlusion": [domain.occlusion], "jitter": [domain.jitter]}


def equal(one: Camera, other: Camera) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(Camera)
    )


def same(one: Domain, other: Domain) -> bool:
    if (one.occlusion, one.jitter) != (other.occlusion, other.jitter):
        return False
    return all(equal(*pair) for pair in zip(one.cameras, other.cameras, strict=True))


def test_names() -> None:
    assert domain_names() == ["mall", "broad-N", "dusk", "far", "crowd"]
    assert (TRAINING, *UNSEEN) == ("mall", "dusk", "far", "crowd")


@pytest.mark.parametrize("name", EVERY)
def test_equal_arguments_equal_cameras(name: str) -> None:
    domain = make_domain(name, seed=4)
    assert domain.name == name
    assert len(domain.cameras) == 6
    assert same(domain, make_domain(name, seed=4))
    assert not same(domain, make_domain(name, seed=5))
    assert not any(equal(domain.cameras[0], camera) for camera in domain.cameras[1:])


def test_each_broad_domain_is_another_place() -> None:
    assert not same(make_domain("broad-0"), make_domain("broad-1"))
    assert len(make_domain("broad-123456", num_cameras=2).cameras) == 2


@pytest.mark.parametrize(
    "name",
    ["", "moon", "Mall", "mall ", "broad", "broad-", "broad-N", "broad-1234567", "broad--1",
     "broad-1\n", "broad-\N{ARABIC-INDIC DIGIT THREE}"],
)  # fmt: skip
def test_unknown_names(name: str) -> None:
    for call in (make_domain, factors_of):
        with pytest.raises(InputError) as caught:
            call(name)
        assert str(caught.value).startswith(f"no domain is called {name!r}; there are mall, broad-")


@pytest.mark.parametrize(("cameras", "seed"), [(1, 0), (0, 0), (6, -1)])
def test_too_few_cameras_or_no_seed(cameras: int, seed: int) -> None:
    with pytest.raises(InputError, match=rf"at least 2 cameras .* got {cameras}, {seed}"):
        make_domain("mall", num_cameras=cameras, seed=seed)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dusk", {"gain", "cast", "noise"}),
        ("far", {"resolution", "blur", "quality"}),
        ("crowd", {"elevation", "occlusion", "occluders", "backgrounds"}),
    ],
)
def test_unseen_domains_lie_apart_from_all_others(name: str, expected: set[str]) -> None:
    assert name in UNSEEN
    for other in set(EVERY) - {name}:
        assert expected <= set(apart(name, other)), other


def apart(name: str, other: str) -> Iterator[str]:
    """Names of the factors of which two domains have nothing in common."""
    ours, theirs = vars(factors_of(name)), vars(factors_of(other))
    for key, value in ours.items():
        if key in KINDS:
            if not set(value) & set(theirs[key]):
                yield key
        elif value[0] > theirs[key][1] or value[1] < theirs[key][0]:
            yield key


@pytest.mark.parametrize("name", EVERY)
def test_ranges_are_ranges(name: str) -> None:
    for key, value in vars(factors_of(name)).items():
        if key not in KINDS:
            low, high = value
            assert low < high, key


@pytest.mark.parametrize("name", EVERY)
def test_cameras_are_drawn_from_their_ranges(name: str) -> None:
    factors = factors_of(name)
    for domain in drawn(name):
        assert domain.occluders == factors.occluders
        for key, values in values_of(domain).items():
            low, high = getattr(factors, key)
            assert low - 1e-9 <= min(values), key
            assert max(values) <= high + 1e-9, key
        for camera in domain.cameras:
            assert 0 <= camera.view < 2 * pi
            assert isinstance(camera.quality, int)
            assert camera.background.shape == (*reversed(SIZE), 3)


@pytest.mark.parametrize("name", EVERY)
def test_cameras_of_a_place_have_something_in_common(name: str) -> None:
    """Of each range a place uses a part, and places together use much of it."""
    places = [values_of(domain) for domain in drawn(name)]
    for key in places[0]:
        low, high = getattr(factors_of(name), key)
        rounding = 1 if key == "quality" else 1e-9
        for values in (place[key] for place in places):
            assert max(values) - min(values) <= 0.6 * (high - low) + rounding
        every = [value for place in places for value in place[key]]
        # Of a place's occlusion and jitter, the middle of the part counts.
        share = 0.2 if key in ("occlusion", "jitter") else 0.62
        assert max(every) - min(every) > share * (high - low), key


@pytest.mark.parametrize("name", EVERY)
def test_backgrounds_are_those_of_the_domain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []

    def draw(_random: np.random.Generator, kind: str) -> NDArray[np.uint8]:
        kinds.append(kind)
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(domains, "draw_background", draw)
    list(drawn(name))
    assert set(kinds) == set(factors_of(name).backgrounds) <= set(BACKGROUNDS)


def test_backgrounds_differ_by_kind_and_seed() -> None:
    pictures = [
        draw_background(np.random.default_rng(seed), kind)
        for kind, seed in product(BACKGROUNDS, (1, 1, 2))
    ]
    for first in range(0, len(pictures), 3):
        one, same_seed, other_seed = pictures[first : first + 3]
        assert one.dtype == np.uint8
        assert one.shape == (*reversed(SIZE), 3)
        np.testing.assert_array_equal(one, same_seed)
        assert (one != other_seed).mean() > 0.5
    assert len({picture.tobytes() for picture in pictures}) == 2 * len(BACKGROUNDS)


def test_leaves_are_green_and_bricks_lie_in_rows() -> None:
    leaves, bricks, plain = (
        draw_background(np.random.default_rng(5), kind)[:180].astype(float)
        for kind in ("foliage", "bricks", "plain")
    )
    assert leaves[..., 1].mean() > leaves[..., 0].mean() + 10
    assert leaves[..., 1].mean() > leaves[..., 2].mean() + 20
    edges = [np.abs(np.diff(picture, axis=0)).max(axis=(1, 2)) for picture in (bricks, plain)]
    assert np.median(edges[1]) < 10 < np.percentile(edges[0], 90)


def test_a_crop_shows_some_part_of_the_background() -> None:
    width, height = SIZE
    y, x = np.indices((height, width))
    where = np.stack([x % 256, y % 256, x // 256 + 2 * (y // 256)], axis=2).astype(np.uint8)
    corners = []
    for seed in range(200):
        part = np.asarray(cut(np.random.default_rng(seed), where)).astype(int)
        assert part.shape == (384, 192, 3)
        left = part[0, 0, 0] + 256 * (part[0, 0, 2] % 2)
        top = part[0, 0, 1] + 256 * (part[0, 0, 2] // 2)
        np.testing.assert_array_equal(part, where[top : top + 384, left : left + 192])
        corners.append((left, top))
    assert (np.ptp(corners, axis=0) >= [170, 60]).all()  # of 192 and 72
    assert len(set(corners)) > 150

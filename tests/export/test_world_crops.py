from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise, product
from math import pi
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from murank_export.world import Domain, Person, draw_crop, make_domain, make_people
from murank_export.world.camera import Camera, expose

Pixels = NDArray[np.int64]
VIEWS = {"front": 0.0, "side": pi / 2, "back": pi, "other side": 3 * pi / 2}
CAMERA = Camera(
    background=np.full((456, 384, 3), 120, np.uint8), view=0.0, spread=0.0, elevation=0.1,
    gain=(1.0, 1.0, 1.0), offset=0.0, gamma=1.0, saturation=1.0, blur=0.0, resolution=1.0,
    noise=0.0, quality=90,
)  # fmt: skip
STUDIO = Domain(  # a camera from each side, nothing in the way
    "studio", tuple(replace(CAMERA, view=view) for view in VIEWS.values()), 0.0, (), 0.5
)
PERSON = Person(
    width=1.0, height=1.0, hair_style=1, hair=1, skin=1, top=7, second=10, pattern=1,
    pattern_scale=1.2, sleeves=0, legs=0, legs_colour=4, shoes=3, bag=2, bag_colour=13, bag_side=0,
    hat=1, hat_colour=5,
)  # fmt: skip
OTHER = Person(
    width=1.0, height=1.0, hair_style=1, hair=3, skin=3, top=5, second=5, pattern=0,
    pattern_scale=1.2, sleeves=0, legs=0, legs_colour=10, shoes=7, bag=2, bag_colour=3, bag_side=0,
    hat=1, hat_colour=9,
)  # fmt: skip


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image).astype(np.int64)


def crop(person: Person, domain: Domain, camera: int, *seed: int) -> Pixels:
    return pixels(draw_crop(person, domain, camera, seed))


def changed(one: Pixels, other: Pixels) -> int:
    """Number of pixels that anyone would call another colour."""
    return int((np.abs(one - other).max(axis=2) > 25).sum())


def changed_in_views(one: Person, other: Person) -> dict[str, int]:
    """The pose, and all else that is drawn, is the seed's: only the person makes a change."""
    return {
        view: changed(crop(one, STUDIO, camera, 1), crop(other, STUDIO, camera, 1))
        for camera, view in enumerate(VIEWS)
    }


def test_equal_arguments_equal_pixels() -> None:
    domain, again = (make_domain("crowd", seed=2) for _ in range(2))
    for camera, seed in product(range(3), range(5)):
        first = draw_crop(PERSON, domain, camera, (seed, 1))
        assert (first.mode, first.size) == ("RGB", (64, 128))
        assert first == draw_crop(PERSON, again, camera, (seed, 1))


def test_seed_camera_person_and_place_matter() -> None:
    domain, place = make_domain("mall"), make_domain("mall", seed=1)
    one = crop(PERSON, domain, 0, 1, 2)
    others = {
        "seed": crop(PERSON, domain, 0, 1, 3),
        "camera": crop(PERSON, domain, 1, 1, 2),
        "person": crop(OTHER, domain, 0, 1, 2),
        "place": crop(PERSON, place, 0, 1, 2),
    }
    for what, other in others.items():
        assert changed(one, other) > 100, what


@pytest.mark.parametrize(
    ("name", "value", "before"),
    [
        ("width", 1.15, {}),
        ("height", 0.92, {}),
        ("hair_style", 0, {"hat": 0}),
        ("hair_style", 2, {"hat": 0}),
        ("hair", 3, {}),
        ("skin", 3, {}),
        ("top", 5, {}),
        ("second", 3, {}),
        ("pattern", 0, {}),
        ("pattern", 2, {}),
        ("pattern", 3, {}),
        ("pattern", 4, {"pattern": 0}),
        ("pattern", 3, {"second": 7}),  # of the colour of the clothes: another is taken
        ("pattern_scale", 0.8, {}),
        ("sleeves", 1, {}),
        ("legs", 1, {}),
        ("legs", 2, {}),
        ("legs_colour", 3, {}),
        ("shoes", 0, {}),
        ("bag", 0, {}),
        ("bag", 1, {}),
        ("bag", 3, {}),
        ("bag_colour", 5, {}),
        ("bag_colour", 5, {"bag": 1}),
        ("bag_colour", 5, {"bag": 3}),
        ("bag_side", 1, {}),
        ("bag_side", 1, {"bag": 3}),
        ("hat", 0, {}),
        ("hat_colour", 2, {}),
    ],
)
def test_every_attribute_is_visible(name: str, value: float, before: dict[str, Any]) -> None:
    person = replace(PERSON, **before)
    changes: dict[str, Any] = {name: value}
    other = replace(person, **changes)
    assert max(changed_in_views(person, other).values()) > 80


def test_no_attribute_is_forgotten_above() -> None:
    (mark,) = (
        mark
        for mark in vars(test_every_attribute_is_visible)["pytestmark"]
        if mark.name == "parametrize"
    )
    assert {case[0] for case in mark.args[1]} == {field.name for field in fields(Person)}


def test_what_a_person_does_not_have_is_not_drawn() -> None:
    bare = replace(PERSON, bag=0, hat=0, pattern=0, hair_style=2)
    other = replace(bare, bag_colour=5, hat_colour=2, second=3, hair=3, bag_side=1)
    for camera in range(len(VIEWS)):
        assert (crop(bare, STUDIO, camera, 1) == crop(other, STUDIO, camera, 1)).all()


def test_a_badge_is_worn_in_front() -> None:
    plain, badge = replace(PERSON, pattern=0, bag=0), replace(PERSON, pattern=4, bag=0)
    seen = changed_in_views(plain, badge)
    assert seen["front"] > 30
    assert seen["back"] == 0


def test_a_backpack_is_seen_from_behind() -> None:
    without, carried = replace(PERSON, bag=0), replace(PERSON, bag=1)
    seen = changed_in_views(without, carried)
    assert seen["back"] == max(seen.values()) > 2 * seen["front"]


def test_look_alikes_can_be_told_apart_from_most_sides() -> None:
    people = make_people(30, seed=4, look_alikes=1, details=1)
    sides = []
    for one, other in pairwise(people):
        seen = [count > 5 for count in changed_in_views(one, other).values()]
        assert any(seen)
        sides.append(np.mean(seen))
    assert np.mean(sides) > 0.9


@pytest.mark.parametrize("kind", ["counter", "wall", "pole", "passer-by"])
def test_occluders_hide(kind: str) -> None:
    """Of two differently dressed people, less is different behind the same thing."""
    free = replace(STUDIO, occluders=(kind,))
    hidden = []
    for seed in range(12):
        shown, left = (
            changed(crop(PERSON, domain, 0, seed), crop(OTHER, domain, 0, seed))
            for domain in (free, replace(free, occlusion=1.0))
        )
        assert 0.1 * shown < left <= shown  # never all of a person
        hidden.append(1 - left / shown)
    assert 0.08 < np.mean(hidden) < 0.6


def test_a_counter_stands_below_and_a_wall_beside() -> None:
    covered = {}
    for kind in ("counter", "wall"):
        domain = replace(STUDIO, occluders=(kind,), occlusion=1.0)
        gone = np.zeros((128, 64))
        for seed in range(12):
            free = crop(PERSON, replace(domain, occlusion=0.0), 0, seed)
            gone += np.abs(crop(PERSON, domain, 0, seed) - free).max(axis=2) > 60
        covered[kind] = gone
    assert covered["counter"][100:].sum() > 10 * covered["counter"][:40].sum()
    assert covered["wall"][:, [0, -1]].mean() > 2 * covered["wall"][:, 32].mean()


def test_how_many_are_occluded() -> None:
    assert 0.25 < share_occluded(replace(STUDIO, occluders=("pole",), occlusion=0.4), 100) < 0.55


def share_occluded(domain: Domain, count: int) -> float:
    """Share of crops that would be others if nothing stood in the way."""
    free = replace(domain, occlusion=0.0)
    return float(
        np.mean(
            [
                (crop(PERSON, domain, 0, seed) != crop(PERSON, free, 0, seed)).any()
                for seed in range(count)
            ]
        )
    )


@pytest.fixture(scope="module")
def crops() -> Callable[[str], list[Pixels]]:
    """Crops of the same strangers, nothing in front, from three places of a domain."""
    people = make_people(18, seed=1, look_alikes=0)

    def draw(name: str) -> list[Pixels]:
        places = [replace(make_domain(name, seed=seed), occlusion=0.0) for seed in range(3)]
        return [
            crop(person, place, number % 6, number)
            for place in places
            for number, person in enumerate(people)
        ]

    return draw


def brightness(image: Pixels) -> float:
    return float(image.mean())


def fine_detail(image: Pixels) -> float:
    """Energy of what changes from a pixel to the next, noise included."""
    grey = image.mean(axis=2)
    inner = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2]
    return float((inner - grey[1:-1, 2:]).var())


def mean_of(measure: Callable[[Pixels], float], images: list[Pixels]) -> float:
    return float(np.mean([measure(image) for image in images]))


@pytest.mark.parametrize("ordinary", ["mall", "broad-0"])
def test_dusk_is_dark_and_noisy_and_far_is_blurred(
    crops: Callable[[str], list[Pixels]], ordinary: str
) -> None:
    usual, dusk, far = (crops(name) for name in (ordinary, "dusk", "far"))
    assert mean_of(brightness, dusk) < 0.75 * mean_of(brightness, usual)
    assert mean_of(fine_detail, dusk) > 1.5 * mean_of(fine_detail, usual)
    assert mean_of(fine_detail, far) < 0.6 * mean_of(fine_detail, usual)


def test_a_crowd_is_in_the_way() -> None:
    crowd, *others = (
        np.mean([share_occluded(make_domain(name, seed=seed), 30) for seed in range(2)])
        for name in ("crowd", "mall", "broad-0")
    )
    assert crowd > max(others) + 0.15


def exposed(scene: Image.Image, **changes: Any) -> Pixels:
    return pixels(expose(scene, replace(CAMERA, **changes), np.random.default_rng(3)))


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """Coarse blocks of any colour, of the size that people are drawn at."""
    random = np.random.default_rng(0)
    blocks = random.integers(60, 180, (32, 16, 3)).astype(np.uint8)
    return Image.fromarray(blocks.repeat(12, axis=0).repeat(12, axis=1))


def test_a_perfect_camera_changes_the_light_alone(scene: Image.Image) -> None:
    seen = exposed(scene)
    small = pixels(scene.resize((64, 128), Image.Resampling.BOX))
    assert seen.shape == (128, 64, 3)
    light = seen.sum(axis=2) / small.sum(axis=2)
    np.testing.assert_allclose(seen, small * light[..., None], atol=1.5)
    assert np.ptp(light) > 0.02  # it falls off to a side
    assert np.abs(np.diff(light, axis=0)).max() < 0.02  # but slowly


def test_what_a_camera_does_to_light_and_colour(scene: Image.Image) -> None:
    see = partial(exposed, scene)
    plain = see()
    red = see(gain=(1.4, 1.0, 1.0)) - plain
    assert red[..., 0].mean() > 20
    assert (red[..., 1:] == 0).all()
    assert (see(offset=0.1) - plain).mean() == pytest.approx(25.5, abs=2)
    assert see(gamma=1.3).mean() < plain.mean() - 10 < plain.mean() + 10 < see(gamma=0.75).mean()
    assert np.ptp(see(saturation=0.0), axis=2).max() == 0
    assert np.ptp(see(saturation=1.2), axis=2).mean() > np.ptp(plain, axis=2).mean()


def test_what_a_camera_does_to_detail(scene: Image.Image) -> None:
    see = partial(exposed, scene)
    plain = see()
    assert fine_detail(see(blur=1.0)) < 0.3 * fine_detail(plain)
    assert fine_detail(see(resolution=0.4)) < 0.6 * fine_detail(plain)
    noise = see(noise=0.05) - plain
    assert noise.std() == pytest.approx(0.05 * 255, rel=0.1)
    assert abs(noise.mean()) < 0.5

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from murank import InputError
from murank_export.world import Person, make_people
from murank_export.world import people as tables
from murank_export.world.people import differences

# Attribute by which a detail is known -> all that may change with it.
DETAILS = {
    "top": {"top"},
    "legs_colour": {"legs_colour"},
    "pattern": {"pattern", "second"},
    "legs": {"legs"},
    "shoes": {"shoes"},
    "sleeves": {"sleeves"},
    "bag": {"bag", "bag_colour"},
    "hat": {"hat", "hat_colour"},
    "hair_style": {"hair_style", "hair"},
}
SIZES = {
    "hair_style": len(tables.HAIR_STYLES), "hair": len(tables.HAIR), "skin": len(tables.SKIN),
    "top": len(tables.CLOTHES), "second": len(tables.CLOTHES), "pattern": len(tables.PATTERNS),
    "sleeves": len(tables.SLEEVES), "legs": len(tables.LEGS), "legs_colour": len(tables.CLOTHES),
    "shoes": len(tables.CLOTHES), "bag": len(tables.BAGS), "bag_colour": len(tables.CLOTHES),
    "bag_side": 2, "hat": len(tables.HATS), "hat_colour": len(tables.CLOTHES),
}  # fmt: skip


def test_the_seed_decides() -> None:
    one, same, other = (make_people(20, seed=seed) for seed in (3, 3, 4))
    assert len(one) == 20
    assert one == same
    assert not set(one) & set(other)


def test_how_many_look_alike_decides() -> None:
    assert make_people(20, seed=3, look_alikes=0.2) != make_people(20, seed=3, look_alikes=0.8)


def test_no_look_alikes_are_strangers() -> None:
    people = make_people(100, seed=1, look_alikes=0)
    for key in ("width", "height", "pattern_scale"):
        assert len({getattr(person, key) for person in people}) == 100


@pytest.mark.parametrize("details", [1, 2, 3, 50])
def test_look_alikes_differ_in_a_few_details_and_in_nothing_else(details: int) -> None:
    people = make_people(200, seed=7, look_alikes=1, details=details)
    alike = [pair for pair in pairwise(people) if pair[0].width == pair[1].width]
    assert len(alike) > 150  # the others would have been somebody who is there already
    counts = set()
    for one, other in alike:
        found = set(differences(one, other))
        changed = [name for name in DETAILS if name in found]  # the first always gets a new value
        assert found <= set().union(*(DETAILS[name] for name in changed))
        counts.add(len(changed))
    assert counts == set(range(1, min(details, len(DETAILS)) + 1))


@pytest.mark.parametrize("seed", range(12))
def test_nobody_is_there_twice(seed: int) -> None:
    """Not even but for the colour of a bag or hat that is not there."""
    people = make_people(300, seed=seed, look_alikes=1, details=1)
    shown = set()
    for person in people:
        values = vars(person).copy()
        if tables.PATTERNS[person.pattern] == "plain":
            del values["second"], values["pattern_scale"]
        if tables.BAGS[person.bag] == "none":
            del values["bag_colour"], values["bag_side"]
        if tables.HATS[person.hat] == "none":
            del values["hat_colour"]
        shown.add(tuple(values.items()))
    assert len(shown) == len(people)


def test_every_detail_changes_in_turn() -> None:
    people = make_people(200, seed=2, look_alikes=1, details=1)
    pairs = pairwise(people)
    assert set(DETAILS) <= {name for pair in pairs for name in differences(*pair)}


def test_the_share_of_look_alikes() -> None:
    people = make_people(600, seed=5, look_alikes=0.3)
    alike = [one.width == other.width for one, other in pairwise(people)]
    assert 0.22 < np.mean(alike) < 0.38


def test_every_number_finds_its_place_in_its_table() -> None:
    people = make_people(1500, seed=9)
    numbers = {field.name for field in fields(Person) if field.type is int or field.type == "int"}
    assert numbers == set(SIZES)
    for name, size in SIZES.items():
        seen = {getattr(person, name) for person in people}
        assert all(type(value) is int for value in seen)
        if name == "shoes":  # not of every colour
            assert seen < set(range(size))
        else:
            assert seen == set(range(size)), name


def test_bodies_are_of_ordinary_size() -> None:
    people = make_people(300, seed=9, look_alikes=0)
    assert all(0.85 <= person.width <= 1.2 and 0.9 <= person.height <= 1.05 for person in people)
    assert all(0.8 <= person.pattern_scale <= 1.6 for person in people)


def test_differences_are_named() -> None:
    person = make_people(1, seed=0)[0]
    assert differences(person, person) == []
    values = {**vars(person), "top": person.top + 1, "hat": 1 - person.hat}
    assert sorted(differences(person, Person(**values))) == ["hat", "top"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"details": 0},
        {"seed": -1},
        {"look_alikes": -0.01},
        {"look_alikes": 1.01},
        {"look_alikes": float("nan")},
    ],
)
def test_what_makes_no_sense(wrong: dict[str, float]) -> None:
    arguments = {"count": 3, "seed": 0, **wrong}
    with pytest.raises(InputError, match=r"people must be at least 1, .*; got .*") as caught:
        make_people(**arguments)  # type: ignore[arg-type]
    assert str(next(iter(wrong.values()))) in str(caught.value)

"""Made-up people: what stays with a person from one camera to the next."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from murank._exceptions import InputError

Colour = tuple[int, int, int]

CLOTHES: tuple[Colour, ...] = (
    (24, 24, 28), (74, 76, 82), (140, 142, 146), (232, 232, 228), (28, 40, 96), (56, 106, 196),
    (142, 190, 236), (176, 34, 38), (236, 132, 160), (238, 138, 36), (230, 206, 62), (40, 104, 58),
    (142, 186, 84), (104, 66, 36), (196, 164, 118), (114, 52, 132),
)  # fmt: skip
_TOP_WEIGHTS = (3, 2, 2, 3, 2, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1)
_LEGS_WEIGHTS = (8, 4, 4, 2, 8, 4, 2, 1, 0.6, 0.6, 0.6, 1.4, 0.6, 3, 3, 0.6)
_SHOE_WEIGHTS = (4, 2, 1, 4, 1, 1, 0, 1, 0, 0.5, 0, 0, 0, 1, 0.5, 0)
HAIR: tuple[Colour, ...] = (
    (20, 16, 16), (58, 34, 20), (110, 68, 32), (206, 170, 96), (158, 156, 152),
)  # fmt: skip
_HAIR_WEIGHTS = (4, 3, 2, 1, 1)
SKIN: tuple[Colour, ...] = ((242, 204, 174), (216, 166, 130), (164, 116, 82), (104, 68, 48))
_SKIN_WEIGHTS = (3, 3, 2, 2)

HAIR_STYLES = ("short", "long", "bald")
PATTERNS = ("plain", "hoops", "stripes", "checks", "badge")
SLEEVES = ("long", "short")
LEGS = ("trousers", "shorts", "skirt")
BAGS = ("none", "backpack", "shoulder bag", "hand bag")
HATS = ("none", "cap")


@dataclass(frozen=True)
class Person:
    """What a person looks like, wherever they are seen. Whole numbers index the tables above."""

    width: float  # of the body, about 1
    height: float
    hair_style: int
    hair: int
    skin: int
    top: int  # colour of the upper clothes
    second: int  # other colour of their pattern
    pattern: int
    pattern_scale: float
    sleeves: int
    legs: int
    legs_colour: int
    shoes: int
    bag: int
    bag_colour: int
    bag_side: int  # 0 or 1
    hat: int
    hat_colour: int


# What a look-alike may differ in: a change that can be seen from most sides.
_DETAILS: tuple[tuple[str, ...], ...] = (
    ("top",), ("legs_colour",), ("pattern", "second"), ("legs",), ("shoes",), ("sleeves",),
    ("bag", "bag_colour"), ("hat", "hat_colour"), ("hair_style", "hair"),
)  # fmt: skip


def make_people(
    count: int, *, seed: int, look_alikes: float = 0.5, details: int = 2
) -> list[Person]:
    """Draw people; the same arguments give the same people.

    Parameters
    ----------
    count
        How many.
    seed
        Of all that is drawn.
    look_alikes
        Share of people who are dressed as the one before them but for one to `details` details:
        the hard negatives of a re-identification set.
    details
        Number of details, at most, in which a look-alike differs.

    Raises
    ------
    InputError
        `count` or `details` is below 1, `seed` negative, or `look_alikes` outside [0,1].
    """
    if count < 1 or details < 1 or seed < 0 or not 0 <= look_alikes <= 1:
        raise InputError(
            "people must be at least 1, details at least 1, the seed at least 0, and look-alikes "
            f"in 0..1; got {count}, {details}, {seed}, {look_alikes}"
        )
    random = np.random.default_rng([seed, 1])
    people: list[Person] = []
    seen: set[Person] = set()
    for _ in range(count):
        stranger = _draw(random)
        if people and random.random() < look_alikes:
            changed = random.permutation(len(_DETAILS))[: random.integers(1, details + 1)]
            alike = _look_alike(people[-1], stranger, [_DETAILS[i] for i in changed])
            # Changed back into somebody who is there already: nobody could tell the two apart.
            if _seen(alike) not in seen:
                stranger = alike
        people.append(stranger)
        seen.add(_seen(stranger))
    return people


def differences(one: Person, other: Person) -> list[str]:
    """Names of the attributes in which two people differ."""
    names = [field.name for field in fields(Person)]
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _draw(random: np.random.Generator) -> Person:
    return Person(
        width=float(random.uniform(0.85, 1.2)),
        height=float(random.uniform(0.9, 1.05)),
        hair_style=_choose(random, (5, 4, 1)),
        hair=_choose(random, _HAIR_WEIGHTS),
        skin=_choose(random, _SKIN_WEIGHTS),
        top=_choose(random, _TOP_WEIGHTS),
        second=_choose(random, np.ones(len(CLOTHES))),
        pattern=_choose(random, (5, 2, 1.5, 1.5, 2)),
        pattern_scale=float(random.uniform(0.8, 1.6)),
        sleeves=_choose(random, (5, 4)),
        legs=_choose(random, (6, 2, 2)),
        legs_colour=_choose(random, _LEGS_WEIGHTS),
        shoes=_choose(random, _SHOE_WEIGHTS),
        bag=_choose(random, (5, 2.5, 2, 1.5)),
        bag_colour=_choose(random, np.ones(len(CLOTHES))),
        bag_side=int(random.integers(2)),
        hat=_choose(random, (7, 2)),
        hat_colour=_choose(random, np.ones(len(CLOTHES))),
    )


def _look_alike(model: Person, stranger: Person, details: Sequence[tuple[str, ...]]) -> Person:
    """Return `model` with some details replaced, each by a value it did not have."""
    changes: dict[str, Any] = {}
    for detail in details:
        first = detail[0]
        options = {
            "pattern": len(PATTERNS), "legs": len(LEGS), "sleeves": len(SLEEVES),
            "bag": len(BAGS), "hat": len(HATS), "hair_style": len(HAIR_STYLES),
        }.get(first, len(CLOTHES))  # fmt: skip
        changes |= {name: getattr(stranger, name) for name in detail}
        if changes[first] == getattr(model, first):
            changes[first] = (changes[first] + 1) % options
    return replace(model, **changes)


def _seen(person: Person) -> Person:
    """Return the person without what does not show: the colour of a bag that is not there."""
    hidden: dict[str, Any] = {}
    if PATTERNS[person.pattern] == "plain":
        hidden |= {"second": 0, "pattern_scale": 1.0}
    if BAGS[person.bag] == "none":
        hidden |= {"bag_colour": 0, "bag_side": 0}
    if HATS[person.hat] == "none":
        hidden |= {"hat_colour": 0}
    return replace(person, **hidden)


def _choose(random: np.random.Generator, weights: Any) -> int:
    share = np.asarray(weights, float)
    return int(random.choice(len(share), p=share / share.sum()))

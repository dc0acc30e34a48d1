"""The rotary positions that a config.json asks for, in the words of any version of transformers.

transformers 4 says rope_theta and rope_scaling, 5 says rope_parameters. Each makes up what it does
not find, and not the same: so all has to be said, and said alike wherever it is said.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

VISION_THETA = 10_000.0  # of all three families; transformers 4 knows no other
_INTERLEAVED = "qwen3_vl"  # the family whose axes take turns among the frequencies
# kind -> numbers that it needs, and that it may have (YaRN's paper says what they are otherwise)
_KINDS: Mapping[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "yarn": (
        {"factor", "original_max_position_embeddings"},
        {"attention_factor", "beta_fast", "beta_slow"},
    ),
}
_DICTS = ("rope_scaling", "rope_parameters")
_BESIDE = ("rope_theta", "partial_rotary_factor")  # may stand beside those as well as in them


class RopeError(ValueError):
    """What is wrong with the rope of a config.json: a sentence whose subject is that file."""


@dataclass(frozen=True)
class Rope:
    """M-RoPE of a decoder."""

    theta: float
    sections: tuple[int, int, int]  # frequencies that turn by time, row and column
    interleaved: bool  # the axes take turns, instead of following one another
    kind: str  # default, linear or yarn
    numbers: Mapping[str, float]  # of the kind

    def settings(self) -> dict[str, Any]:
        """Say it as every version reads it, in text_config."""
        scaling = {"rope_type": self.kind, "mrope_section": list(self.sections), **self.numbers}
        return {"rope_theta": self.theta, "rope_scaling": scaling}

    def inverse_frequencies(self) -> Tensor:
        """Radians a position, [D/2] float64."""
        half = sum(self.sections)
        plain = self.theta ** (-torch.arange(half, dtype=torch.float64) / half)
        if self.kind == "default":
            return plain
        stretched = plain / self.numbers["factor"]
        if self.kind == "linear":
            return stretched
        # What turns more than `fast` times within the original length stays, less than `slow` not.
        length = self.numbers["original_max_position_embeddings"]
        fast, slow = (
            half * math.log(length / (self.numbers.get(name, usual) * 2 * math.pi))
            / math.log(self.theta)
            for name, usual in (("beta_fast", 32), ("beta_slow", 1))
        )  # fmt: skip
        first, last = max(math.floor(fast), 0), min(math.ceil(slow), 2 * half - 1)
        share = (torch.arange(half) - first) / max(last - first, 0.001)
        return torch.lerp(plain, stretched, share.clamp(0, 1).double())

    @property
    def scale(self) -> float:
        """Factor of the tables: YaRN's, elsewhere 1."""
        if self.kind != "yarn":
            return 1.0
        return self.numbers.get("attention_factor", 0.1 * math.log(self.numbers["factor"]) + 1)

    def axes(self) -> Tensor:
        """Axis (0, 1, 2) that each frequency turns by, [D/2]."""
        if not self.interleaved:
            return torch.repeat_interleave(torch.arange(3), torch.tensor(self.sections))
        axes = torch.zeros(sum(self.sections), dtype=torch.long)
        for axis in (1, 2):
            axes[axis : 3 * self.sections[axis] : 3] = axis
        return axes


def read_rope(family: str, half: int, places: Sequence[Mapping[str, Any]]) -> Rope:
    """Read the rope of a decoder from the `places` of a config.json that may say it.

    `half` is half the width of a head.

    Raises
    ------
    RopeError
        It is not all there, said in two ways, or none that murank computes.
    """
    said = _agreed(places)
    for name in ("rope_theta", "mrope_section"):
        if name not in said:
            raise RopeError(f"does not say {name}: copy it from the original model's config.json")
    theta, sections = said.pop("rope_theta"), said.pop("mrope_section")
    if not (_is_number(theta) and theta > 1):
        raise RopeError(f"has rope_theta {theta!r}: it must be a number above 1")
    if not _is_sections(sections) or sum(sections) != half:
        raise RopeError(
            f"has mrope_section {sections!r}: it must be three whole numbers that add up to half "
            f"the width of a head, {half}"
        )
    interleaved = family == _INTERLEAVED
    if said.pop("mrope_interleaved", interleaved) is not interleaved:
        raise RopeError(f"says mrope_interleaved {not interleaved}, which {family} is not")
    if said.pop("partial_rotary_factor", 1) != 1:
        raise RopeError("says partial_rotary_factor, which murank does not compute")
    kind = said.pop("rope_type", "default")
    _check_kind(kind, said)
    return Rope(float(theta), (sections[0], sections[1], sections[2]), interleaved, kind, said)


def check_vision_rope(vision: Mapping[str, Any]) -> None:
    """Raise RopeError unless the rope of a vision tower is the one that all of them have."""
    usual: Mapping[str, tuple[object, ...]] = {
        "rope_type": ("axial", "default"),
        "rope_theta": (VISION_THETA,),
        "partial_rotary_factor": (1,),
    }
    for name, value in _agreed([vision]).items():
        if value not in usual.get(name, ()):
            raise RopeError(
                f"says {name} {value!r} in vision_config, which murank does not compute"
            )


def without_rope(place: Mapping[str, Any]) -> dict[str, Any]:
    """Return what else a place says."""
    return {name: value for name, value in place.items() if name not in (*_DICTS, *_BESIDE)}


def _check_kind(kind: object, numbers: Mapping[str, Any]) -> None:
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RopeError(f"has a rope of type {kind!r}; murank computes {', '.join(_KINDS)}")
    needed, allowed = _KINDS[kind]
    for name in sorted(needed - set(numbers)):
        raise RopeError(f"has a rope of type {kind} without {name}")
    for name, value in numbers.items():
        if name not in needed | allowed:
            raise RopeError(f"says {name} for a rope of type {kind}: murank does not compute that")
        if not _is_number(value) or value < (1 if name == "factor" else 0) or value == 0:
            raise RopeError(f"has {name} {value!r} in its rope: it must be a number above 0")


def _agreed(places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the places say together."""
    agreed: dict[str, Any] = {}
    for name, value in itertools.chain.from_iterable(map(_claims, places)):
        if agreed.setdefault(name, value) != value:
            raise RopeError(f"says {name} twice: {agreed[name]!r} and {value!r}")
    return agreed


def _claims(place: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a place says of its rope; null is nothing said."""
    for name in _DICTS:
        said = place.get(name)
        if said is not None and not isinstance(said, Mapping):
            raise RopeError(f"has {name} {said!r}: it must be an object")
        for key, value in (said or {}).items():
            if isinstance(value, Mapping):
                raise RopeError(f"has a rope of its own for {key}: murank computes one for all")
            if value is not None:
                plain = "default" if value == "mrope" else value  # an older name of it
                yield ("rope_type", plain) if key == "type" else (key, plain)
    yield from ((name, place[name]) for name in _BESIDE if place.get(name) is not None)


def _is_sections(value: object) -> bool:
    return isinstance(value, list) and [type(x) for x in value] == [int] * 3 and min(value) > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

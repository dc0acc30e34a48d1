"""Domains: places with cameras of their own, by name.

`mall` is where the miniature's encoder and LoRA were trained. `broad-0`, `broad-1`, ... are many
ordinary places: the miniature MLLM's stand-in for pre-training. `dusk`, `far` and `crowd` are
unseen: each has factors wholly outside what any of the others show (a test holds them apart).
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import pi

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank_export.world.backgrounds import BACKGROUNDS, draw_background
from murank_export.world.camera import Camera

Range = tuple[float, float]
TRAINING, UNSEEN = "mall", ("dusk", "far", "crowd")
BROAD = "broad"
_BROAD_NAME = re.compile(rf"{BROAD}-([0-9]{{1,6}})")


@dataclass(frozen=True)
class Factors:
    """Ranges that the cameras of a domain are drawn from."""

    gain: Range = (0.8, 1.2)
    cast: Range = (0.0, 0.12)  # distance of R, G, B gains from their mean
    offset: Range = (-0.02, 0.06)
    gamma: Range = (0.85, 1.2)
    saturation: Range = (0.75, 1.1)
    blur: Range = (0.0, 0.6)
    resolution: Range = (0.8, 1.0)
    noise: Range = (0.005, 0.025)
    elevation: Range = (0.0, 0.35)
    spread: Range = (0.6, 1.4)
    occlusion: Range = (0.05, 0.25)  # share of crops with something in front of the person
    jitter: Range = (0.3, 0.7)  # of the box around the person
    quality: Range = (82, 95)
    occluders: tuple[str, ...] = ("counter", "wall")
    backgrounds: tuple[str, ...] = ("plain", "rooms")


_ORDINARY = Factors(
    gain=(0.65, 1.35), cast=(0.0, 0.2), offset=(-0.05, 0.1), gamma=(0.75, 1.35),
    saturation=(0.55, 1.2), blur=(0.0, 0.9), resolution=(0.65, 1.0), noise=(0.005, 0.035),
    elevation=(0.0, 0.4), spread=(0.6, 1.6), occlusion=(0.05, 0.3), jitter=(0.3, 1.0),
)  # fmt: skip
_FACTORS: Mapping[str, Factors] = {
    TRAINING: Factors(),
    BROAD: _ORDINARY,
    "dusk": replace(
        _ORDINARY, gain=(0.36, 0.54), gamma=(0.75, 1.0), noise=(0.045, 0.065), cast=(0.22, 0.32)
    ),
    "far": replace(_ORDINARY, resolution=(0.34, 0.46), blur=(0.95, 1.2), quality=(55, 70)),
    "crowd": replace(
        _ORDINARY, elevation=(0.55, 0.85), occlusion=(0.5, 0.65), occluders=("passer-by", "pole"),
        backgrounds=("foliage", "bricks"),
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Domain:
    """A place and its cameras."""

    name: str
    cameras: tuple[Camera, ...]
    occlusion: float
    occluders: tuple[str, ...]
    jitter: float
    seed: int = field(repr=False, default=0)


def domain_names() -> list[str]:
    """Names that `make_domain` knows, the broad ones as one."""
    return [f"{BROAD}-N" if name == BROAD else name for name in _FACTORS]


def factors_of(name: str) -> Factors:
    """Return the ranges that a domain is drawn from.

    Raises
    ------
    InputError
        No domain has that name.
    """
    kind = BROAD if _BROAD_NAME.fullmatch(name) else name
    if kind not in _FACTORS or name == BROAD:
        raise InputError(f"no domain is called {name!r}; there are {', '.join(domain_names())}")
    return _FACTORS[kind]


def make_domain(name: str, *, seed: int = 0, num_cameras: int = 6) -> Domain:
    """Draw the cameras of a domain; the same arguments give the same.

    Raises
    ------
    InputError
        No domain has that name, fewer than two cameras, or a negative seed.
    """
    factors = factors_of(name)
    if num_cameras < 2 or seed < 0:
        raise InputError(
            f"a domain needs at least 2 cameras and a seed of at least 0, got {num_cameras}, {seed}"
        )
    random = np.random.default_rng([seed, 2, zlib.crc32(name.encode())])
    # What its cameras have in common makes a place: each range is narrowed to a part of it.
    common = {key: _part(random, value) for key, value in _ranges(factors).items()}
    cast = random.standard_normal(3)
    kinds = [kind for kind in BACKGROUNDS if kind in factors.backgrounds]
    cameras = tuple(_camera(random, common, cast, kinds) for _ in range(num_cameras))
    return Domain(
        name, cameras, float(np.mean(common["occlusion"])), factors.occluders,
        float(np.mean(common["jitter"])), seed,
    )  # fmt: skip


def _camera(
    random: np.random.Generator,
    ranges: Mapping[str, Range],
    cast: NDArray[np.float64],
    backgrounds: list[str],
) -> Camera:
    value = {key: float(random.uniform(*span)) for key, span in ranges.items()}
    tint = cast + 0.6 * random.standard_normal(3)
    tint -= tint.mean()
    tint *= value["cast"] / max(float(np.abs(tint).max()), 1e-6)
    red, green, blue = (float(value["gain"] * (1 + share)) for share in tint)
    kind = backgrounds[int(random.integers(len(backgrounds)))]
    return Camera(
        background=draw_background(random, kind),
        view=float(random.uniform(0, 2 * pi)),
        spread=value["spread"],
        elevation=value["elevation"],
        gain=(red, green, blue),
        offset=value["offset"],
        gamma=value["gamma"],
        saturation=value["saturation"],
        blur=value["blur"],
        resolution=value["resolution"],
        noise=value["noise"],
        quality=round(value["quality"]),
    )


def _ranges(factors: Factors) -> dict[str, Range]:
    return {
        name: value
        for name, value in vars(factors).items()
        if isinstance(value, tuple) and not isinstance(value[0], str)
    }


def _part(random: np.random.Generator, span: Range) -> Range:
    """Return a random part of a range, three fifths as long."""
    low, high = span
    start = low + float(random.uniform(0, 0.4)) * (high - low)
    return start, start + 0.6 * (high - low)

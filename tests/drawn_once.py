"""Crops that exports ask about, drawn once for all of them."""

from collections.abc import Sequence

import pytest
from PIL import Image

from murank_export.world import Domain, Person, draw_crop, drawn_pairs

_drawn: dict[tuple[Person, str, int, tuple[int, ...]], Image.Image] = {}


def draw_once(patch: pytest.MonkeyPatch) -> None:
    """Save half a second of each export that collects activations."""
    patch.setattr(drawn_pairs, "draw_crop", _draw)


def draw_anew(patch: pytest.MonkeyPatch) -> None:
    """Draw each time again."""
    patch.setattr(drawn_pairs, "draw_crop", draw_crop)


def _draw(person: Person, domain: Domain, camera: int, seed: Sequence[int]) -> Image.Image:
    key = person, domain.name, camera, tuple(seed)  # `drawn_pairs` has one domain of a name
    if key not in _drawn:
        _drawn[key] = draw_crop(person, domain, camera, seed)
    return _drawn[key]

"""Pairs of drawn person crops, to see what the layers of a model are given."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from murank.images import Preprocessing, prepare
from murank_export.world import draw_crop, make_domain, make_people

_SEED = 20250607
_PLACES = 8  # ordinary ones: what is called unseen stays so

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def drawn_pairs(count: int, how: Preprocessing) -> Iterator[Pair]:
    """Yield query and candidate [3,H,W] uint8; every second candidate shows the same person.

    The others are often look-alikes. The same arguments give the same pixels.
    """
    people = make_people(2 * count, seed=_SEED)
    places = [make_domain(f"broad-{i}", seed=_SEED, num_cameras=2) for i in range(_PLACES)]
    for index in range(count):
        place, query = places[index % _PLACES], people[2 * index]
        candidate = query if index // _PLACES % 2 else people[2 * index + 1]
        crops = (
            draw_crop(person, place, camera, [_SEED, index, camera])
            for camera, person in enumerate((query, candidate))
        )
        first, second = (prepare(np.asarray(crop), how).pixels for crop in crops)
        yield first, second

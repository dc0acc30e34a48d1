"""Images that take part in pairs without an answer."""

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Skip(NamedTuple):
    """An image, and why pairs of it have no answer."""

    path: str
    reason: str  # of the first of them
    pairs: int


def once_each(skips: Iterable[Skip], count: Callable[[int, int], int]) -> list[Skip]:
    """Name each image once; `count` makes one number of two."""
    skips_by_path: dict[str, Skip] = {}
    for skip in skips:
        known = skips_by_path.get(skip.path)
        skips_by_path[skip.path] = (
            known._replace(pairs=count(known.pairs, skip.pairs)) if known else skip
        )
    return list(skips_by_path.values())

"""Who wants to be told that kernels are compiled: a first run on a machine takes seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_told: list[Callable[[], None]] = []


@contextmanager
def told_of_compiling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` once, before the first kernel is compiled inside, if one is."""
    _told.append(tell)
    try:
        yield
    finally:
        if tell in _told:
            _told.remove(tell)


def now_compiling() -> None:
    """Tell those who want to know, each once."""
    while _told:
        _told.pop()()

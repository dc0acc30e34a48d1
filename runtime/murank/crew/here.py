"""UnitWork done in this process: one unit begun ahead of the one in work."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from murank.crew.crew_protocol import Make, UnitWork


class Here:
    """No other process."""

    size = 1

    def __init__(self, make: Make) -> None:
        self._make = make

    @cached_property
    def _work(self) -> UnitWork:
        return self._make()

    def answers(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield each unit and its answer, in order."""
        waiting: tuple[Any, Any] | None = None
        for unit in units:
            begun = self._work.begin(unit)
            if waiting is not None:
                yield waiting[0], self._work.finish(*waiting)
            waiting = unit, begun
        if waiting is not None:
            yield waiting[0], self._work.finish(*waiting)

    def close(self) -> None:
        """Nothing is held."""

"""What a crew is given, and what it gives back."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from murank._exceptions import MurankError


class StalledError(MurankError):
    """No worker has finished anything for far longer than its work takes."""


class BrokenWorkError(Exception):
    """A bug in the work of another process; the text is the traceback there."""


class Unit(Protocol):
    """A piece of work that can be pickled."""

    def split(self) -> "Sequence[Any]":
        """Return smaller units that make up this one; none if it cannot be divided."""


class UnitWork(Protocol):
    """What does units: made once in each process."""

    def begin(self, unit: Any) -> Any:
        """Start in the background what can be done before its turn, such as decoding."""

    def finish(self, unit: Any, begun: Any) -> Any:
        """Do the rest; return the answer."""


Make = Callable[[], UnitWork]
"""Pickled, and called in each process before its first unit."""


@dataclass(frozen=True)
class Lost:
    """Stands for the answer of a unit that ends the processes it runs in."""

    reason: str


class Crew(Protocol):
    """Who does the work."""

    @property
    def size(self) -> int:
        """How many units are worked at once."""

    def answers(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield units, or parts of them, and their answers, in any order.

        Raises what the work raises, once nothing more will come; MachineError if workers cannot
        be kept alive, StalledError if none answers.
        """

    def close(self) -> None:
        """Let everybody go."""

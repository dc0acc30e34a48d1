"""Work for worker processes: numbers are doubled; some of them end or stop the process."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from murank import InputError


@dataclass(frozen=True)
class Numbers:
    """A unit."""

    values: tuple[int, ...]

    def split(self) -> "Sequence[Numbers]":
        """Halves."""
        middle = len(self.values) // 2
        return [Numbers(self.values[:middle]), Numbers(self.values[middle:])] if middle else []


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers, and notes who did it."""

    log: Path
    kills: tuple[int, ...] = ()  # a process that is given one of these ends
    kills_once: tuple[int, ...] = ()
    refuses: tuple[int, ...] = ()
    breaks: tuple[int, ...] = ()
    hangs: tuple[int, ...] = ()

    def begin(self, unit: Numbers) -> int:
        """Sum."""
        return sum(unit.values)

    def finish(self, unit: Numbers, begun: int) -> tuple[int, ...]:
        """Double."""
        assert begun == sum(unit.values)
        for value in unit.values:
            self._meet(value)
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {unit.values}\n")
        return tuple(2 * value for value in unit.values)

    def _meet(self, value: int) -> None:
        once = self.log.with_name(f"met-{value}")
        if value in self.kills or (value in self.kills_once and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if value in self.refuses:
            raise InputError(f"{value} is refused")
        if value in self.breaks:
            raise ZeroDivisionError
        if value in self.hangs:
            time.sleep(600)


@dataclass(frozen=True)
class Maker:
    """Makes it, or ends or fails before it can."""

    work: Doubling
    ends: bool = False
    fails: bool = False

    def __call__(self) -> Doubling:
        if self.ends:
            os._exit(7)
        if self.fails:
            raise InputError("it cannot be loaded")
        return self.work

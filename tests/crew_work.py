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
    orphaned_once: tuple[int, ...] = ()  # its parent ends
    refuses: tuple[int, ...] = ()
    breaks: tuple[int, ...] = ()
    hangs: tuple[int, ...] = ()
    errs: tuple[int, ...] = ()  # the system refuses
    pause: float = 0  # seconds a unit takes
    together: int = 1  # processes that must be there before one goes on

    def begin(self, unit: Numbers) -> int:
        """Sum."""
        return sum(unit.values)

    def finish(self, unit: Numbers, begun: int) -> tuple[int, ...]:
        """Double."""
        assert begun == sum(unit.values)
        time.sleep(self.pause)
        self._wait_for_others()
        for value in unit.values:
            self._meet(value)
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {unit.values}\n")
        return tuple(2 * value for value in unit.values)

    def _wait_for_others(self) -> None:
        self.log.with_name(f"process-{os.getpid()}").touch()
        for _ in range(600):
            if len([*self.log.parent.glob("process-*")]) >= self.together:
                return
            time.sleep(0.1)

    def _meet(self, value: int) -> None:
        if value in self.errs:
            raise OSError(5, "Input/output error")
        once = self.log.with_name(f"met-{value}")
        if value in self.kills or (value in self.kills_once and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if value in self.orphaned_once and not once.exists():
            once.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(0.5)  # it takes the system a moment
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

"""How long the steps of scoring took lately, and whether the next one ends before a deadline."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from murank.engine.stopwatch import Stage, StageWatch
from murank.images.arguments import check_number

Clock = Callable[[], float]  # seconds

# As TCP foresees round trips (Jacobson 1988): a mean and a mean deviation, both forgetting.
_NEW = 1 / 4  # weight of the newest
_DEVIATIONS = 2  # added to the mean
_MOST_AT_ONCE = 4  # times what was expected: one stall is no new pace
_FADE = 0.85  # of an estimate, each time it refuses a step: a stall costs a few queries


class Pace:
    """Seconds an item of each step, learnt while it works. Safe from several threads."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        self._known: dict[Stage, tuple[float, float]] = {}  # mean and mean deviation
        self._once: set[Stage] = set()  # seen once so far
        self._lock = threading.Lock()

    @contextmanager
    def timed(
        self, step: Stage, watch: StageWatch, items: int = 1, *, learn: bool = True
    ) -> Iterator[None]:
        """Count what happens inside to the stage, and learn from it; nothing from an error.

        Large runs should not teach: an item takes less time in them than in the small steps
        between two looks at the clock.
        """
        start = self.clock()
        with watch.stage(step):
            yield
        if learn:
            self._learn(step, (self.clock() - start) / items)

    def expected(self, step: Stage, items: int = 1) -> float:
        """Seconds that the step will hardly exceed; 0 if it was never seen."""
        mean, deviation = self._known.get(step, (0.0, 0.0))
        return items * (mean + _DEVIATIONS * deviation)

    def fade(self, step: Stage) -> None:
        """Believe an estimate a little less: one slow spell must not refuse the step for ever."""
        with self._lock:
            if step in self._known:
                mean, deviation = self._known[step]
                self._known[step] = mean * _FADE, deviation * _FADE

    def _learn(self, step: Stage, seconds: float) -> None:
        with self._lock:
            is_new, is_second = step not in self._known, step in self._once
            (self._once.add if is_new else self._once.discard)(step)
            # A first run allocates: a faster second one counts alone.
            if is_new or (is_second and seconds < self._known[step][0]):
                self._known[step] = seconds, seconds / 2
                return
            mean, deviation = self._known[step]
            if mean > 0:
                seconds = min(seconds, _MOST_AT_ONCE * (mean + _DEVIATIONS * deviation))
            gap = seconds - mean
            deviation += _NEW * (abs(gap) - deviation)
            self._known[step] = mean + _NEW * gap, deviation


class Deadline:
    """A moment on the clock of a pace, or none."""

    def __init__(self, pace: Pace, end: float | None, *, reserve: float = 0.0) -> None:
        """`end` is a moment of `pace.clock`; `reserve` seconds before it belong to what follows."""
        self.pace = pace
        self._last = None if end is None else end - reserve

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._last is not None

    def fits(self, **steps: int) -> bool:
        """Whether so many items of these steps end in time, as far as their pace is known."""
        if self._last is None:
            return True
        wanted: dict[Stage, int] = {step: items for step, items in steps.items() if items}  # type: ignore[misc]
        needed = sum(self.pace.expected(step, items) for step, items in wanted.items())
        left = self._last - self.pace.clock()
        # Without a pace yet, one step may be late; a time that is over is over.
        if left > 0 and needed <= left:
            return True
        if left > 0:
            for step in wanted:
                self.pace.fade(step)
        return False


def check_deadline(deadline_ms: float | None) -> None:
    """Raise InputError unless it is a positive number of milliseconds, or None."""
    if deadline_ms is None:
        return
    check_number(deadline_ms, "deadline_ms", above=0)

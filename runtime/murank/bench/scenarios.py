"""MLPerf's scenarios: who is asked when, and from when a latency counts.

Each yields samples as they come, so that what was measured before an interruption is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from murank.bench.clock import Clock
from murank.bench.samples import Sample, TimedAnswer

BLOCK = 32  # queries that Offline hands over together
_GRACE = 10.0  # seconds after the duration that Server and Offline may take to catch up
_LEAST_MS = 1.0  # of a deadline that is left to a query which has waited too long already


class Subject(Protocol):
    """What is measured."""

    def ask(self, query: Path, deadline_ms: float | None) -> TimedAnswer:
        """Answer one query."""

    def ask_many(self, queries: Sequence[Path]) -> TimedAnswer:
        """Answer a group of queries."""

    def forget(self) -> None:
        """Clear all caches of images."""

    def warm(self) -> None:
        """Let the vision tokens of all gallery images be known."""


class Queries(Protocol):
    """Images nobody has seen before."""

    def take(self, count: int) -> list[Path]:
        """Make that many."""


def single_stream(
    subject: Subject,
    queries: Queries,
    clock: Clock,
    *,
    duration: float,
    deadline_ms: float | None = None,
    before: Callable[[], None] | None = None,
    least: int = 1,
) -> Iterator[Sample]:
    """One query at a time, the next when the last is answered, until `duration` is over.

    `before` runs before each query, outside its latency; at least `least` queries are asked.
    """
    watch = _Watch(clock)
    done = 0
    while done < least or clock.now() - watch.began < duration:
        (query,) = queries.take(1)
        if before is not None:
            before()
        yield watch.ask(partial(subject.ask, query, deadline_ms), 1, deadline_ms)
        done += 1


def multi_stream(
    subject: Subject, queries: Queries, clock: Clock, *, duration: float, group: int, least: int = 1
) -> Iterator[Sample]:
    """Groups of `group` queries, the next when the last is answered; a group is one sample."""
    watch = _Watch(clock)
    done = 0
    while done < least or clock.now() - watch.began < duration:
        yield watch.ask(partial(subject.ask_many, queries.take(group)), group)
        done += 1


def arrivals(qps: float, duration: float, seed: int) -> list[float]:
    """Seconds at which queries arrive: a Poisson process, the same for equal arguments."""
    random = np.random.default_rng([seed, 2])
    moments: list[float] = []
    due = float(random.exponential(1 / qps))
    while due < duration:
        moments.append(due)
        due += float(random.exponential(1 / qps))
    return moments or [0.0]


def server(
    subject: Subject,
    queries: Queries,
    clock: Clock,
    *,
    due: Sequence[float],
    duration: float,
    deadline_ms: float | None = None,
) -> Iterator[Sample]:
    """Queries that arrive at `due` seconds, whatever is going on, and wait for their turn.

    A latency counts from the scheduled arrival: a stall is felt by all who wait meanwhile. What is
    not begun `_GRACE` seconds after the duration is not asked any more: the caller counts it.
    """
    images = queries.take(len(due))
    watch = _Watch(clock)
    for image, arrival in zip(images, due, strict=True):
        waited = clock.now() - watch.began - arrival
        if waited < 0:
            clock.sleep(-waited)
            waited = max(0.0, clock.now() - watch.began - arrival)
        if arrival + waited > duration + _GRACE:
            return
        left = None if deadline_ms is None else max(deadline_ms - 1e3 * waited, _LEAST_MS)
        asked = partial(subject.ask, image, left)
        yield watch.ask(asked, 1, deadline_ms, since=watch.began + arrival)


def offline(
    subject: Subject, queries: Queries, clock: Clock, *, count: int, duration: float
) -> Iterator[Sample]:
    """All `count` queries are there at once; a latency counts from the beginning for every one."""
    images = queries.take(count)
    watch = _Watch(clock)
    for start in range(0, count, BLOCK):
        if clock.now() - watch.began > duration + _GRACE:
            return
        part = images[start : start + BLOCK]
        yield watch.ask(partial(subject.ask_many, part), len(part), since=watch.began)


class _Watch:
    """Times one answer after the other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.began = clock.now()

    def ask(
        self,
        answer_of: Callable[[], TimedAnswer],
        queries: int,
        deadline_ms: float | None = None,
        *,
        since: float | None = None,
    ) -> Sample:
        """Return what an answer took; `since`: when it was due, if that was not now."""
        cpu, start = self._clock.cpu(), self._clock.now()
        answer = answer_of()
        end = self._clock.now()
        latency = end - (start if since is None else since)
        late = 0.0 if deadline_ms is None else max(0.0, latency - deadline_ms / 1e3)
        return Sample(
            queries=queries, latency=latency, service=end - start, cpu=self._clock.cpu() - cpu,
            answer=answer, overshoot=late, ended=end - self.began,
        )  # fmt: skip

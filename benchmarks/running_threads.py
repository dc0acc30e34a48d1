"""Threads of this process, from the kernel's own account: which worked, ran at once, and where."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")
_PAUSE = 0.001  # seconds between looks
_QUICK = 0.002  # seconds; in a look that was interrupted, what was read first has passed


def cpu_seconds() -> dict[int, float]:
    """CPU seconds of each thread until it last slept. RuntimeError where the kernel keeps none."""
    found: dict[int, float] = {}
    for task in _TASKS.iterdir() if _TASKS.exists() else ():
        with suppress(OSError):  # a thread that has ended since
            found[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    if not found:
        raise RuntimeError("threads are counted in /proc, as Linux has it")
    return found


def worked_since(before: dict[int, float]) -> int:
    """Return how many threads that are still there have had a core since `before`."""
    now = cpu_seconds()
    return sum(seconds > before.get(thread, 0.0) for thread, seconds in now.items())


class RunningThreads:
    """While entered, another thread looks how many run, or wait for a core; it counts itself out.

    A thread counts in a look if it runs in two readings of all threads, one right after the other:
    of a single one, where work passes from thread to thread, both might be counted.
    """

    def __init__(self) -> None:
        self.bound: set[int] = set()  # that ran bound to fewer cores than the process may use
        self._seen: Counter[int] = Counter()  # looks, by how many ran
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def looks(self) -> int:
        """How often it looked."""
        return self._seen.total()

    def most(self, share: float = 0.05) -> int:
        """Return how many ran at once for at least that share of the time."""
        least = share * self.looks
        return max((n for n in self._seen if self._at_least(n) >= least), default=0)

    def _at_least(self, count: int) -> int:
        return sum(looks for n, looks in self._seen.items() if n >= count)

    def __enter__(self) -> RunningThreads:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        own, mine = threading.get_native_id(), os.sched_getaffinity(0)
        while not self._ended.wait(_PAUSE):
            start = time.perf_counter()
            both = running() & running()
            if time.perf_counter() - start < _QUICK:
                self._seen[len(both - {own})] += 1
            self.bound |= {thread for thread in both if _cores(thread, mine) < mine}


def _cores(thread: int, otherwise: set[int]) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:
        return otherwise


def running() -> set[int]:
    """Return the threads that run or wait for a core, by id."""
    found = set()
    for name in os.listdir(_TASKS):  # noqa: PTH208 (quick)
        with suppress(OSError):
            text = (_TASKS / name / "stat").read_text()
            if text.rpartition(")")[2].split()[0] == "R":
                found.add(int(name))
    return found

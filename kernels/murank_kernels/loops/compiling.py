"""Who wants to be told that kernels are compiled: a first run on a machine takes seconds."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 1.0  # seconds of compiling that need no word

_told: list[Callable[[], None]] = []
_lock = threading.RLock()
_depth = 0  # kernels that are being compiled: one needs the next
_began = _spent = 0.0  # when the outermost did; seconds of those that are done
_timer: threading.Timer | None = None


@contextmanager
def told_of_compiling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` once, as soon as kernels have been compiled inside for longer than `PATIENCE`.

    It is called by another thread.
    """
    global _spent
    with _lock:
        _told.append(tell)
        _spent = 0.0
    try:
        yield
    finally:
        with _lock:
            if tell in _told:
                _told.remove(tell)
            _stop()


def compiling_begins() -> None:
    """Count the time from here on."""
    global _began, _depth, _timer
    with _lock:
        _depth += 1
        if _depth == 1:
            _began = time.monotonic()
            if _told:
                _timer = threading.Timer(max(PATIENCE - _spent, 0.0), _tell)
                _timer.daemon = True
                _timer.start()


def compiling_ends() -> None:
    """Count no more, unless it was for another kernel that is still being compiled."""
    global _depth, _spent
    with _lock:
        _depth -= 1
        if _depth == 0:
            _spent += time.monotonic() - _began
            _stop()


def _stop() -> None:
    global _timer
    if _timer is not None:
        _timer.cancel()
        _timer = None


def _tell() -> None:
    """Tell those who want to know, each once."""
    with _lock:
        while _told:
            _told.pop()()

"""The command's own process: its standard streams are open, and a signal ends it in one line.

Imports nothing heavy: all of this must stand before anything that takes its time.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType

_Handler = Callable[[int, "FrameType | None"], object]
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_stopped_by: list[int] = []  # signals that came while there was work


def plug_streams() -> None:
    """Give closed standard streams to /dev/null, lest the next file opened becomes one of them."""
    for descriptor in range(3):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def leave_on_signals() -> None:
    """Let SIGINT and SIGTERM end the process at once: while importing, there is nothing to undo."""
    _handle(leave, instead_of=(signal.default_int_handler, signal.SIG_DFL))


def stop_on_signals() -> None:
    """Let them raise KeyboardInterrupt from now on, if `leave_on_signals` took them before."""
    _handle(_stop, instead_of=(leave,))


def release_signals() -> None:
    """Let the system end the process: what Python does as it ends is not worth a traceback."""
    _handle(signal.SIG_DFL, instead_of=(leave, _stop))
    # If the interrupt came in code made of text, as dataclasses are, `python -m` would remember it
    # and end by the signal, not by our exit code, unless code made of text has run since.
    exec("")  # noqa: S102


def stop_signal() -> int | None:
    """Return the signal that stopped the work, None if none came."""
    return _stopped_by[0] if _stopped_by else None


def stopped(number: int = signal.SIGINT) -> tuple[str, int]:
    """Return what to say of a signal, and the exit code."""
    return _WORDS[signal.Signals(number)], 128 + number


def _is_open(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


def _handle(handler: "_Handler | signal.Handlers", *, instead_of: tuple[object, ...]) -> None:
    for number in _WORDS:
        # A signal that whoever started us ignores (nohup, a job in the background) stays ignored.
        if signal.getsignal(number) in instead_of:
            signal.signal(number, handler)


def leave(number: int, _frame: "FrameType | None") -> None:
    """End the process at once, in one line: there is nothing to put in order."""
    word, code = stopped(number)
    with contextlib.suppress(OSError):
        os.write(2, f"murank: {word}\n".encode())
    os._exit(code)


def _stop(number: int, _frame: "FrameType | None") -> None:
    _stopped_by.append(number)
    raise KeyboardInterrupt

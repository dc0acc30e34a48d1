"""Standard output that is never lost in silence, and a standard error that never disturbs."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from murank._exceptions import OutputError
from murank.checks.text import plain
from murank.machine.process import plug_streams


class ReaderLeftError(Exception):
    """Who read our output has left, as `head` does."""


class _Guarded(io.FileIO):
    """A standard stream; after its first failure what is written to it vanishes."""

    failed = False

    def write(self, data: Any, /) -> int:
        if not self.failed:
            try:
                return super().write(data)
            except OSError as error:
                self.failed = True
                self._told(error)
        return len(memoryview(data).cast("B"))

    def _told(self, error: OSError) -> None:
        """Say no more: there is no better place to say it."""


class _Output(_Guarded):
    def _told(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise ReaderLeftError from error
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Let failures of standard output raise OutputError (ReaderLeftError), those of error nothing.

    Streams that somebody has put in their place are left alone. Names that the terminal's encoding
    lacks are written with backslashes.
    """
    plug_streams()
    output, errors = sys.stdout, sys.stderr
    if isinstance(output, io.TextIOWrapper) and output is sys.__stdout__:
        sys.stdout = _text(_Output(output.fileno(), "w", closefd=False), output)
    if errors is None:
        sys.stderr = io.StringIO()
    elif isinstance(errors, io.TextIOWrapper) and errors is sys.__stderr__:
        sys.stderr = _text(_Guarded(errors.fileno(), "w", closefd=False), errors)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, OutputError, ReaderLeftError):
                    stream.flush()
        sys.stdout, sys.stderr = output, errors


def check_output() -> None:
    """Raise OutputError if there is nowhere to print to."""
    if sys.stdout is None:
        raise OutputError("standard output is closed; pass > /dev/null if it is not wanted")


def flush_output() -> None:
    """Write what is still held back. Raises OutputError if it cannot be."""
    sys.stdout.flush()


def tell(text: str) -> None:
    """Write a line to standard error; where that is closed or full, to standard output."""
    text = plain(text)
    print(text, file=sys.stderr, flush=True)
    if _is_lost(sys.stderr) and sys.stdout is not None:
        with contextlib.suppress(OSError, OutputError, ReaderLeftError):
            print(text, flush=True)


def _is_lost(errors: TextIO) -> bool:
    if sys.__stderr__ is None:
        return isinstance(errors, io.StringIO)
    return getattr(getattr(getattr(errors, "buffer", None), "raw", None), "failed", False)


def _text(raw: _Guarded, like: TextIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=like.encoding, errors="backslashreplace",
        line_buffering=like is sys.__stderr__ or os.isatty(raw.fileno()),
    )  # fmt: skip

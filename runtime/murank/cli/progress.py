"""Progress on stderr: one line that is rewritten on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import TextIO

from murank.checks.text import plain
from murank.cli.output import keep_note
from murank.rerank.methods import Progress

_EVERY_TTY = 0.1  # seconds between updates
_EVERY_LOG = 10.0


class ProgressLine:
    """Shows (stage, done, total), or nothing if quiet; `close`, or leaving it, clears the line."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._shown_at = time.monotonic()
        self._width = 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def part(self, name: str) -> Progress:
        """Return the callback for one part of the work."""

        def show(stage: str, done: int, total: int) -> None:
            self._show(f"{name}: {stage} {done}/{total}")

        return show

    def say(self, text: str) -> None:
        """Show a line that stays."""
        if not self._quiet:
            self.close()
            self._stream.write(plain(text) + "\n")
            self._stream.flush()

    def note(self, text: str) -> None:
        """Show and keep what the reader of the results must know."""
        keep_note(text)
        self.say(f"note: {text}")

    def _show(self, text: str) -> None:
        if self._quiet:
            return
        now = time.monotonic()
        if now - self._shown_at < (_EVERY_TTY if self._tty else _EVERY_LOG):
            return
        self._shown_at = now
        text = plain(text)
        if self._tty:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Clear the line of a terminal."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

"""Progress: on stderr one line that is rewritten on a terminal, else a line now and then; a file.

"mu: 8,160/10,000 pairs, 812/s, 2 s left, 2 workers".
"""

import argparse
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from murank._exceptions import OutputError
from murank.checks.text import plain
from murank.cli.output import keep_note, line_is_open, one_writer
from murank.files.atomic import check_writable
from murank.files.line_log import LineLog, now
from murank.files.private import is_our_file
from murank.rerank.methods import Progress

_EVERY_TTY = 0.1  # seconds between updates
_EVERY_LOG = 10.0
_EVERY_LINE = 0.5  # of the file
_WINDOW = 30.0  # seconds that a rate looks back
_BEGIN = b'{"time": '  # of each line of the file
# What callbacks count. Other words say what is done, as the kernels' "neighbours" do.
_UNITS = {
    "blocks", "candidates", "cold starts", "crops", "gallery images", "images", "MiB hashed",
    "pairs", "queries", "rows", "settings", "strips", "tracks", "units", "validation pairs",
    "vision tokens",
}  # fmt: skip


def add_progress(group: Any) -> None:
    """Add the option that `progress_file` reads."""
    group.add_argument(
        "--progress", metavar="FILE", help="add how far it is to a file, as JSON lines"
    )


def progress_file(args: argparse.Namespace, others: Sequence[str | Path | None]) -> Path | None:
    """Return the file of --progress.

    Raises
    ------
    OutputError
        It may not be written, holds something else, or is one of `others` or inside of one.
    """
    if args.progress is None:
        return None
    file = Path(args.progress)
    for other in others:
        if other is not None and Path(other).resolve() in (file.resolve(), *file.resolve().parents):
            raise OutputError(f"--progress {file} is {other}, or in it; name a file elsewhere")
    if file.is_symlink() or file.exists():
        if file.is_symlink() or not is_our_file(file.stat()):
            raise OutputError(f"--progress {file} is no file of this user; name another")
        with file.open("rb") as there:
            begin = there.read(len(_BEGIN))
        if begin not in (b"", _BEGIN):
            raise OutputError(f"--progress {file} holds something else; name another file")
    if not file.parent.is_dir():
        raise OutputError(f"--progress {file}: no such folder")
    check_writable(file.parent)
    return file


class _Stage:
    """How far one stage is, and how fast it went lately."""

    def __init__(self, name: str, word: str, workers: int) -> None:
        is_unit = word in _UNITS
        self.word = word
        self.name = name if is_unit else f"{name}: {word}"
        self._unit = word if is_unit else "steps"
        self._workers = workers
        self._marks: deque[tuple[float, int]] = deque()  # when, done
        self.done = self._total = 0

    def update(self, done: int, total: int) -> None:
        self.done, self._total = done, total
        at = time.monotonic()
        if not self._marks or at - self._marks[-1][0] >= _EVERY_TTY:
            self._marks.append((at, done))
        while len(self._marks) > 2 and at - self._marks[1][0] >= _WINDOW:
            self._marks.popleft()

    @property
    def is_done(self) -> bool:
        return self.done >= self._total

    @property
    def _rate(self) -> float | None:
        """Per second, None as long as it is not known."""
        at, done = self._marks[0]
        seconds = time.monotonic() - at
        return (self.done - done) / seconds if self.done > done and seconds > 0 else None

    @property
    def _left(self) -> float | None:
        """Seconds."""
        rate = self._rate
        return None if rate is None else (self._total - self.done) / rate

    def text(self) -> str:
        """Return the line."""
        unit = "" if self._unit == "steps" else f" {self._unit}"
        parts = [f"{self.name}{':' * bool(unit)} {self.done:,}/{self._total:,}{unit}"]
        if (rate := self._rate) is not None:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        if (left := self._left) is not None and not self.is_done:
            parts.append(f"{_span(left)} left")
        if self._workers > 1:
            parts.append(f"{self._workers} workers")
        return ", ".join(parts)

    def facts(self) -> dict[str, Any]:
        """Return a line of the file."""
        rate, left = self._rate, self._left
        workers = {"workers": self._workers} if self._workers > 1 else {}
        return {
            "time": now(), "stage": self.name, "done": self.done, "total": self._total,
            "unit": self._unit, "rate": rate and round(rate, 3),
            "seconds_left": left if left is None else round(left, 1), **workers,
        }  # fmt: skip


class _File:
    """The file: made with its first line, and given up at the first that cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: LineLog | None = None
        self._written_at = -_EVERY_LINE
        self._waiting: _Stage | None = None  # what its last line does not say
        self.failed: str | None = None

    def show(self, stage: _Stage) -> None:
        if self._waiting is not None and self._waiting is not stage:
            self.flush()
        self._waiting = stage
        if stage.is_done or time.monotonic() - self._written_at >= _EVERY_LINE:
            self.flush()

    def flush(self) -> None:
        stage, self._waiting = self._waiting, None
        if stage is None or self.failed is not None:
            return
        self._written_at = time.monotonic()
        try:
            self._lines = self._lines or LineLog(self._path)
            self._lines.add(stage.facts())
        except OSError as error:
            self.failed = f"--progress {self._path} ends here: {error.strerror or error}"

    def close(self) -> None:
        self.flush()
        if self._lines is not None:
            self._lines.close()
            self._lines = None


class ProgressLine:
    """Shows (stage, done, total), or nothing if quiet; `close`, or leaving it, clears the line."""

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, file: Path | None = None
    ) -> None:
        """`file`: where it goes as JSON lines, too, quiet or not."""
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._shown_at = time.monotonic()
        self._width = 0
        self._file = None if file is None else _File(file)

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
        if self._file is not None:
            self._file.close()
        self._tell_failure()

    def part(self, name: str, *, workers: int = 1) -> Progress:
        """Return the callback for one part of the work, which several processes may do."""
        stage: _Stage | None = None

        def show(word: str, done: int, total: int) -> None:
            nonlocal stage
            if stage is None or word != stage.word or done < stage.done:
                stage = _Stage(name, word, workers)
            stage.update(done, total)
            self._show(stage)

        return show

    def say(self, text: str) -> None:
        """Show a line that stays."""
        if not self._quiet:
            with one_writer:
                self.close()
                self._stream.write(plain(text) + "\n")
                self._stream.flush()

    def note(self, text: str) -> None:
        """Show and keep what the reader of the results must know."""
        keep_note(text, shown=not self._quiet)
        self.say(f"note: {text}")

    def _show(self, stage: _Stage) -> None:
        if self._file is not None:
            self._file.show(stage)
            self._tell_failure()
        if self._quiet:
            return
        at = time.monotonic()
        if at - self._shown_at < (_EVERY_TTY if self._tty else _EVERY_LOG):
            return
        self._shown_at = at
        text = plain(stage.text())
        with one_writer:
            if self._tty:
                self._stream.write("\r" + text.ljust(self._width))
                self._width = len(text)
                line_is_open(self.close)
            else:
                self._stream.write(text + "\n")
            self._stream.flush()

    def _tell_failure(self) -> None:
        """Say, once, that the file is not written any more: no reason to stop."""
        if self._file is not None and self._file.failed is not None:
            file, self._file = self._file, None
            file.close()
            self.note(file.failed or "")

    def close(self) -> None:
        """Clear the line of a terminal."""
        with one_writer:
            if self._width:
                self._stream.write("\r" + " " * self._width + "\r")
                self._stream.flush()
                self._width = 0
                line_is_open(None)


def _span(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"

"""All that the command says: plain lines, JSON, and notes, which belong to both.

Names of files are in all of it, and may hold anything. No verb prints by itself.
"""

import contextlib
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from murank.checks.text import plain

_notes: list[str] = []  # of this run, in order
_shown: set[str] = set()  # those of them that stderr has
_dark: list[str] = []  # images that are nearly black: many images, one note
_clear: Callable[[], None] | None = None  # clears the line that a terminal shows without its end
one_writer = threading.RLock()  # on standard error: that kernels compile is said by another thread


def say(*lines: str) -> None:
    """Print lines to standard output, each as one line whatever is in it."""
    for line in lines:
        print(plain(line))
    sys.stdout.flush()


def say_error(line: str) -> None:
    """Print a line to standard error, in place of one that is rewritten there."""
    with one_writer:
        if _clear is not None:
            _clear()
        print(plain(line), file=sys.stderr, flush=True)


def line_is_open(clear: Callable[[], None] | None) -> None:
    """Let `say_error` first clear the line that a terminal shows; None: there is none any more."""
    global _clear
    _clear = clear


def say_json(value: Mapping[str, Any]) -> None:
    """Print an object as JSON in one line; its key `notes` lists the notes of this run, too."""
    whole = {**value, "notes": _merged(value.get("notes", ()))}
    print(json.dumps(whole, allow_nan=False))
    sys.stdout.flush()


def keep_note(text: str, *, shown: bool) -> None:
    """Keep what the reader of the results must know; `shown`: it is on standard error."""
    _notes.append(text)
    if shown:
        _shown.add(text)


def notes() -> list[str]:
    """Return the notes of this run so far, warnings among them, each once."""
    return _merged(())


def not_shown(texts: Iterable[str]) -> list[str]:
    """Return those that standard error has not, nor will have at the end."""
    return [text for text in texts if text not in {*_shown, *_dark_note()}]


def _merged(more: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*more, *_notes, *_dark_note()]))


def _dark_note() -> list[str]:
    first, *others = list(dict.fromkeys(_dark)) or [""]
    if others:
        return [f"{1 + len(others)} images are like the first of these: {first}"]
    return [first] if first else []


@contextlib.contextmanager
def gathered_notes() -> Iterator[None]:
    """Begin with none. Show what is logged, and warnings without their line of code, as errors are.

    They are notes, too.
    """
    _notes.clear()
    _shown.clear()
    _dark.clear()
    log, handler = logging.getLogger("murank"), _NoteHandler()
    log.addHandler(handler)
    with warnings.catch_warnings():
        setattr(warnings, "showwarning", _show)  # noqa: B010 - its type names more than is used
        try:
            yield
        finally:
            log.removeHandler(handler)
            for text in _dark_note():
                say_error(f"murank: warning: {text}")


def _show(message: Warning | str, *_: object, **__: object) -> None:
    keep_note(str(message), shown=True)
    say_error(f"murank: warning: {message}")


class _NoteHandler(logging.Handler):
    """Shows what the library logs; what it says of images, as of nearly black ones, at the end."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "murank.images":
            _dark.append(record.getMessage())
        elif record.getMessage() not in _shown:  # several processes may say the same
            _show(record.getMessage())

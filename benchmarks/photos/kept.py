"""Figures in a JSON file, measured once: a run that was stopped goes on where it stood."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from murank.files.atomic import write_files

Measure = Callable[[], Any]


class Kept:
    """Rows of figures, of what `of` names; a file of something else is begun anew."""

    def __init__(self, file: Path, of: dict[str, Any]) -> None:
        self._file, self._of = file, of
        self._rows: dict[str, Any] = {}
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            if stored["of"] == of:
                self._rows = dict(stored["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or it is no use

    def row(self, name: str, measure: Measure) -> Any:
        """Return the row; measured, and written at once, only where it is missing."""
        if name not in self._rows:
            self._rows[name] = measure()
            text = json.dumps({"of": self._of, "rows": self._rows}, indent=1) + "\n"
            write_text(self._file, text)
        return self._rows[name]


def write_text(file: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    write_files(file.parent, {file.name: lambda handle: handle.write(text.encode())})

"""Who searched and who erased: a line each, and no picture, name or id of anybody."""

from pathlib import Path
from typing import Any

from murank._exceptions import OutputError
from murank.files.line_log import LineLog, now
from murank.gallery.gallery_result import Erasure


class Audit:
    """Lines added to a file, owner-only; without a file nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        """Open it. Raises OutputError."""
        try:
            self._lines = None if path is None else LineLog(path)
        except OSError as error:
            raise OutputError(f"--audit {path}: {error.strerror or error}") from error

    def write(self, action: str, **facts: Any) -> None:
        """Add a line; it is on the disk when this returns. Raises OutputError."""
        if self._lines is None:
            return
        try:
            self._lines.add({"time": now(), "action": action, **facts})
            self._lines.sync()
        except OSError as error:
            raise OutputError(f"the audit file: {error.strerror or error}") from error

    def erased(self, receipt: Erasure, *, by: str | None, **who: Any) -> None:
        """Add the line of an erasure, named by what; as `write`."""
        self.write("erase", **who, by=by, rows=receipt.rows, complete=receipt.complete)

    def close(self) -> None:
        """Close it. Twice is once."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

"""Who searched and who erased: a line each, and no picture, name or id of anybody."""

import json
import os
from pathlib import Path
from typing import Any

from murank._exceptions import OutputError
from murank.service.log_lines import now


class Audit:
    """Lines added to a file, owner-only; without a file nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        """Open it. Raises OutputError."""
        self._file = None
        if path is not None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                self._file = os.open(path, flags, 0o600)
                size = os.fstat(self._file).st_size
                if size and os.pread(self._file, 1, size - 1) != b"\n":  # a power cut tore it
                    os.write(self._file, b"\n")
            except OSError as error:
                raise OutputError(f"--audit {path}: {error.strerror or error}") from error

    def write(self, action: str, **facts: Any) -> None:
        """Add a line; it is on the disk when this returns. Raises OutputError."""
        if self._file is None:
            return
        line = json.dumps({"time": now(), "action": action, **facts}) + "\n"
        try:
            if os.write(self._file, line.encode()) < len(line):
                raise OutputError("the audit file: its disk is full")
            os.fsync(self._file)
        except OSError as error:
            raise OutputError(f"the audit file: {error.strerror or error}") from error

    def close(self) -> None:
        """Close it. Twice is once."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

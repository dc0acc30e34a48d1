"""Lines added to a file: one JSON object each, and whole ones, whoever was killed."""

import errno
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def now() -> str:
    """Return the time as lines have it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class LineLog:
    """A file of its owner's alone, which grows by a line at a time and is never cut."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. Raises OSError; a symlink is not followed."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        try:
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":  # a power cut tore it
                self._write(b"\n")
        except BaseException:
            os.close(self._file)
            raise

    def add(self, facts: Mapping[str, Any]) -> None:
        """Write an object as a line. Raises OSError."""
        self._write(json.dumps(facts, allow_nan=False).encode() + b"\n")

    def sync(self) -> None:
        """Return once all lines are on the disk. Raises OSError."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close it, once."""
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        if os.write(self._file, data) < len(data):
            raise OSError(errno.ENOSPC, "its disk is full")

"""One process writes a gallery: a lock beside its file, gone with the process that holds it."""

import contextlib
import fcntl
import os
from pathlib import Path

from murank._exceptions import InputError, OutputError


class WriterLock:
    """Held from its making on. Raises InputError where another holds it, OutputError."""

    def __init__(self, path: Path) -> None:
        # Not the file itself: closing a descriptor of it would drop SQLite's own locks.
        lock = path.with_name(f"{path.name}-lock")
        try:
            self._descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise OutputError(f"cannot write beside {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise InputError(
                f"{path} is open for writing elsewhere: close it there, or read it (mode='r')"
            ) from error

    def release(self) -> None:
        """Let others write."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

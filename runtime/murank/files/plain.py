"""Files and folders of an engine: plain ones only, never through a symlink."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from murank._exceptions import InputError
from murank.checks.text import is_utf8
from murank.files.damage import damaged


@contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading; InputError if it is none, or reading it fails."""
    file_size(path)
    with readable_errors(path):
        # Should it be replaced right now: no symlink followed, no writer of a FIFO waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            yield file


def file_size(path: Path) -> int:
    """Return the bytes of a regular file; InputError if it is none."""
    return _plain(path, stat.S_ISREG, "regular file").st_size


def check_folder(path: Path) -> None:
    """Raise InputError unless it is a folder."""
    _plain(path, stat.S_ISDIR, "folder")


def check_utf8(*paths: Path | None) -> None:
    """Raise InputError unless a library in C++ can be given these names."""
    for path in paths:
        if path is not None and not is_utf8(str(path.absolute())):
            raise InputError(f"{path}: this needs a name in UTF-8 from the root on; rename it")


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an InputError that names the path."""
    try:
        yield
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read by this user: chown or chmod it") from error
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error


def _plain(path: Path, is_kind: Callable[[int], bool], kind: str) -> os.stat_result:
    with readable_errors(path):
        status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise damaged(path, "it is a symlink, which is not followed")
    if not is_kind(status.st_mode):
        raise damaged(path, f"it is not a {kind}")
    return status

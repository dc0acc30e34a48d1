"""Files that appear whole or not at all, readable by their owner alone (biometric data)."""

import contextlib
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

from murank._exceptions import OutputError

Writer = Callable[[IO[bytes]], object]
_ASIDE = ".murank-"


def write_files(
    folder: Path, writers: Mapping[str, Writer], *, remove: Collection[str] = ()
) -> None:
    """Write files of `folder`: all of them aside first, then put into place in the order given.

    Parameters
    ----------
    folder
        Made, with mode 0o700, if missing; taken away again if writing fails.
    writers
        File name -> what writes its content. Files get mode 0o600 and replace older ones.
    remove
        Names that are deleted just before the new files take their place.

    Raises
    ------
    OutputError
        The operating system refuses. Files of an earlier run are then as they were, unless
        the very last step (delete, rename) failed.
    """
    with readable_errors(folder), made_folder(folder):
        aside = {name: folder / f"{_ASIDE}{secrets.token_hex(8)}-{name}" for name in writers}
        try:
            for name, write in writers.items():
                _write_aside(aside[name], write)
            for name in remove:
                (folder / name).unlink(missing_ok=True)
            for name, path in aside.items():
                path.replace(folder / name)
        finally:
            for path in aside.values():
                path.unlink(missing_ok=True)
        _sync(folder)


def check_writable(folder: Path) -> None:
    """Raise OutputError if files could not be put into `folder`, which may be missing as yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: {nearest} is not a writable folder")


def abandoned(folder: Path) -> list[str]:
    """Names of what a killed process left aside in `folder`."""
    return [path.name for path in folder.glob(f"{_ASIDE}*") if path.is_file()]


def _write_aside(path: Path, write: Writer) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the renames themselves durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make missing folders, mode 0o700; take back those made here if the work inside fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    made: list[Path] = []
    try:
        for path in reversed(missing):
            path.mkdir(mode=0o700)
            made.append(path)
        yield
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def readable_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error

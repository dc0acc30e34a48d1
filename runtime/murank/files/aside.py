"""What is being written, beside where it will go: locked by its writer, so a leftover shows.

A process that was killed holds no lock. So whoever writes next in that folder can tell what is
left of it from what another process is working on, and deletes it.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_NAME = re.compile(r"\.murank-[0-9a-f]{16}-.+", re.DOTALL)


@contextlib.contextmanager
def aside(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a new path beside `target`, made and locked; what is there at the end is deleted.

    `make` makes a file or a folder, and raises FileExistsError for a name that is in use.
    """
    path, lock = _claimed(target, make)
    try:
        yield path
    finally:
        try:
            _delete(path)
        finally:
            os.close(lock)


@contextlib.contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """Make a folder below TMPDIR that nobody else may enter, and that is gone at the end.

    OSError if there is no place for it. What killed processes left there is deleted first.
    """
    place = Path(tempfile.gettempdir())
    sweep(place)
    with aside(place / name, lambda path: path.mkdir(mode=0o700)) as folder:
        yield folder


def sweep(folder: Path) -> None:
    """Delete what killed processes of this user have left aside in `folder`, if it can be."""
    for path in _asides(folder):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                status = os.fstat(lock)
                if status.st_uid == os.geteuid() and _is_plain(status.st_mode):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _delete(path)
            finally:
                os.close(lock)


def is_aside(name: str) -> bool:
    """Whether a file or folder of this name is being written, or was when its writer was killed."""
    return _NAME.fullmatch(name) is not None


def abandoned(folder: Path) -> list[str]:
    """Names of what is aside in `folder`, which is nothing to keep."""
    return [path.name for path in _asides(folder)]


def _asides(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if is_aside(entry.name)]
    return []


def _claimed(target: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    while True:
        path = target.with_name(f".murank-{secrets.token_hex(8)}-{target.name}")
        make(path)
        try:
            return path, _locked(path)
        except FileNotFoundError:
            continue  # swept before it was locked
        except BaseException:
            _delete(path)
            raise


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that cannot lock: nobody sweeps there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.samestat(path.stat(), os.fstat(lock)):
            raise FileNotFoundError(path)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _is_plain(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

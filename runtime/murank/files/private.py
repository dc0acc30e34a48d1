"""Folders that belong to this user, held open: what a symlink leads to is never touched."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from murank._exceptions import OutputError

_NOT_A_FOLDER = (errno.ENOTDIR, errno.ELOOP)


@contextlib.contextmanager
def open_folder(path: Path, *, within: int | None = None, ours: bool = True) -> Iterator[int]:
    """Yield a descriptor of a folder that is there.

    Parameters
    ----------
    path
        The folder. Its parents may be reached through symlinks, it itself may not.
    within
        Descriptor of its parent, where that is open already; None: reached by `path`.
    ours
        Whether it must belong to this user.

    Raises
    ------
    OutputError
        It is a symlink, no folder, or of another user.
    OSError
        It is not there, or may not be opened.
    """
    name = path if within is None else path.name
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=within)
    except OSError as error:
        if error.errno not in _NOT_A_FOLDER:
            raise
        kind = "a symlink, which is not followed" if path.is_symlink() else "no folder"
        raise OutputError(f"{path} is {kind}: name a folder itself, or remove it") from error
    try:
        if ours and os.fstat(descriptor).st_uid != os.geteuid():
            raise OutputError(f"{path} belongs to another user: name a folder of your own")
        yield descriptor
    finally:
        os.close(descriptor)


def is_our_file(status: os.stat_result) -> bool:
    """Whether it is a regular file of this user."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def is_ours_alone(status: os.stat_result) -> bool:
    """Whether nobody but this user and root could change it."""
    writers = stat.S_IWGRP | stat.S_IWOTH
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & writers

"""Two folders that change places, in one step where the system has one."""

import ctypes
import errno
import os
import shutil
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths are relative to the working folder
_EXCHANGE = 2  # RENAME_EXCHANGE
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP)


def exchange(new: Path, target: Path, old: Path) -> None:
    """Put `new` into the place of `target`, which is at `new` afterwards, or gone.

    `old` is a name to keep `target` under for a moment, where it takes two steps.
    """
    try:
        rename_both(new, target)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        _one_after_the_other(new, target, old)


def rename_both(one: Path, other: Path) -> None:
    """Exchange two names at once; OSError if the file system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28, musl none
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def _one_after_the_other(new: Path, target: Path, old: Path) -> None:
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)

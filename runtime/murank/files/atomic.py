"""Files and folders that appear whole or not at all; files are their owner's alone (biometrics).

All that murank writes goes through here, but for the cache of vision tokens, which may be lost.
Nothing takes its place before it is on the disk: content is synced, then renamed, then the folder
is synced.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

from murank._exceptions import MachineError, OutputError
from murank.files.aside import abandoned, aside, sweep
from murank.files.exchange import exchange

__all__ = [
    "Writer", "abandoned", "check_writable", "made_folder", "new_folder", "readable_errors",
    "replace_file", "sole_writer", "sweep", "sync", "write_files",
]  # fmt: skip

Writer = Callable[[IO[bytes]], object]


def write_files(
    folder: Path, writers: Mapping[str, Writer], *, remove: Collection[str] = (), mode: int = 0o600
) -> None:
    """Write files of `folder`: all of them aside first, then put into place in the order given.

    Parameters
    ----------
    folder
        Made, with mode 0o700, if missing; taken away again if writing fails.
    writers
        File name -> what writes its content. The files replace older ones.
    remove
        Names that are deleted just before the new files take their place.
    mode
        Of the files.

    Raises
    ------
    OutputError
        The operating system refuses. Files of an earlier run are then as they were, unless
        the very last step (delete, rename) failed.
    """
    with readable_errors(folder), made_folder(folder), contextlib.ExitStack() as stack:
        sweep(folder)
        ready = {}
        for name, write in writers.items():
            ready[name] = stack.enter_context(aside(folder / name, _new_file))
            _write(ready[name], write, mode)
        for name in remove:
            (folder / name).unlink(missing_ok=True)
        for name, path in ready.items():
            path.replace(folder / name)
        sync(folder)


def replace_file(file: Path, write: Writer) -> None:
    """Replace a file that is there; whoever could read it still can.

    Raises OutputError if the operating system refuses; the file is then as it was.
    """
    with readable_errors(file):
        mode = file.stat().st_mode & 0o777
    write_files(file.parent, {file.name: write}, mode=mode)


@contextlib.contextmanager
def new_folder(target: Path, *, replace: bool, mode: int = 0o700) -> Iterator[Path]:
    """Yield an empty folder, which takes the place of `target` if all goes well.

    An older folder is there until the new one is, and deleted then; where a file system cannot
    exchange two folders, a process that is killed at the wrong moment leaves it as
    `.murank-old-<name>`, and the next one puts it back.

    Parameters
    ----------
    target
        Parents are made, with mode 0o700, if missing; taken away again if the work fails.
    replace
        Whether it may be there, with something in it.
    mode
        Of the folder, less the umask.

    Raises
    ------
    OutputError
        The operating system refuses. All is then as it was.
    """
    old = target.with_name(f".murank-old-{target.name}")
    with readable_errors(target), made_folder(target.parent):
        sweep(target.parent)
        if old.is_dir() and not target.exists():
            old.rename(target)
        with aside(target, lambda path: path.mkdir(mode=mode)) as stage:
            yield stage
            _sync_tree(stage)
            if replace and target.exists():
                exchange(stage, target, old)
            else:
                stage.rename(target)  # refused if something came to be there meanwhile
            sync(target.parent)


@contextlib.contextmanager
def sole_writer(folder: Path, *, follow: bool = True, must_lock: bool = False) -> Iterator[int]:
    """Keep other processes that ask for the same out of a folder that is there.

    Yields a descriptor of it. It may be reached through a symlink, unless `follow` is False.

    Raises
    ------
    OutputError
        One is at work in it; or it cannot be opened.
    MachineError
        Its file system cannot lock, which `must_lock` asks for.
    """
    with readable_errors(folder):
        no_link = 0 if follow else os.O_NOFOLLOW
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | no_link)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another run is at work in {folder}; wait for it") from error
        except OSError as error:  # a file system that cannot lock
            if must_lock:
                raise MachineError(
                    f"the file system of {folder} cannot lock ({error.strerror or error}), so a "
                    "second run could not be kept out; work on a local disk"
                ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Raise OutputError if files could not be put into `folder`, which may be missing as yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {folder}: {nearest} is not a writable folder")


def sync(path: Path) -> None:
    """Make what is in a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_file(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _write(path: Path, write: Writer, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY), "wb") as file:
        write(file)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        sync(path)


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make missing folders, mode 0o700; take back those made here if the work inside fails.

    Raises OutputError if they cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    made: list[Path] = []
    try:
        with readable_errors(folder):
            for path in reversed(missing):
                with contextlib.suppress(FileExistsError):  # another process was faster
                    path.mkdir(mode=0o700)
                    made.append(path)
        yield
        with readable_errors(folder):
            for path in made:
                sync(path.parent)
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

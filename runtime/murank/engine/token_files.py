"""Files of vision tokens below one `cache_dir`: a folder an engine's vision part, a file an image.

Folders are opened anew for each step, one from the other and through no symlink: whatever is put in
their place, nothing else is read, closed to others or deleted. Only files of our own naming are.
"""

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from murank._exceptions import OutputError
from murank.files.atomic import made_folder
from murank.files.private import is_our_file, open_folder

_FOLDER = re.compile("vision-[0-9a-f]{16}")
_DIGITS = 16  # of the part's hash, in the name of its folder
_KEY = re.compile("[0-9a-f]{64}")
_ASIDE = re.compile(r"\.murank-[0-9a-f]{16}-([0-9a-f]{64})|\.[0-9a-f]{16}")  # second: up to 0.1
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK  # no writer of a FIFO is waited for
ABANDONED_S = 3600.0  # a file aside is written in less than a second


@dataclass(frozen=True)
class TokenFile:
    """A file of ours."""

    name: str
    bytes: int
    time: float  # when it was written, seconds since 1970

    @property
    def key(self) -> str | None:
        """Of the image; None if the name does not tell."""
        aside = _ASIDE.fullmatch(self.name)
        return self.name if aside is None else aside[1]

    @property
    def is_aside(self) -> bool:
        """Whether it is being written, or was when its writer was killed."""
        return self.name.startswith(".")

    @property
    def is_abandoned(self) -> bool:
        """Whether its writer was killed."""
        return self.is_aside and self.time < time.time() - ABANDONED_S


class TokenFolder:
    """One folder, open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    def files(self) -> list[TokenFile]:
        """List the files of ours."""
        files = []
        with os.scandir(self._descriptor) as entries:
            for entry in entries:
                if not (_KEY.fullmatch(entry.name) or _ASIDE.fullmatch(entry.name)):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    known = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(known.st_mode):
                        files.append(TokenFile(entry.name, known.st_size, known.st_mtime))
        return files

    def read(self, key: str, size: int) -> tuple[bytes, float] | None:
        """Return a file's content and its time; None unless it is ours and of that size."""
        descriptor = os.open(key, os.O_RDONLY | _OPEN, dir_fd=self._descriptor)
        try:
            status = os.fstat(descriptor)
            if not is_our_file(status) or status.st_size != size:
                return None
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(size), status.st_mtime
        finally:
            os.close(descriptor)

    def write(self, key: str, *content: bytes) -> None:
        """Write a file, whole or not at all, readable by its owner alone."""
        here, aside = self._descriptor, f".murank-{secrets.token_hex(8)}-{key}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
            with os.fdopen(os.open(aside, flags, 0o600, dir_fd=here), "wb") as file:
                file.writelines(content)
            os.replace(aside, key, src_dir_fd=here, dst_dir_fd=here)
        except BaseException:
            self.delete(aside)
            raise

    def delete(self, name: str) -> bool:
        """Delete a file, not what it may lead to; return whether there was one."""
        try:
            os.unlink(name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return False
        return True

    def delete_key(self, key: str) -> bool:
        """Delete all of one image, return whether there was any."""
        return sum(self.delete(file.name) for file in self.files() if file.key == key) > 0


class TokenFolders:
    """All folders of ours below one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def name_of(part_sha256: str) -> str:
        """Return the name of the folder of an engine's vision part."""
        return f"vision-{part_sha256[:_DIGITS]}"

    def names(self) -> list[str]:
        """Return their names."""
        with open_folder(self.root, ours=False) as root, os.scandir(root) as entries:
            return sorted(one.name for one in entries if _FOLDER.fullmatch(one.name))

    def remove_empty(self, name: str) -> None:
        """Remove one that nothing is left in; one with something in it stays."""
        with contextlib.suppress(OSError, OutputError), open_folder(self.root, ours=False) as root:
            os.rmdir(name, dir_fd=root)

    @contextlib.contextmanager
    def open(self, name: str, *, make: bool = False) -> Iterator[TokenFolder]:
        """Open one, after closing it to others; with `make` it is made if missing.

        Raises
        ------
        OutputError
            It, or the folder it lies in, is a symlink or no folder; or it is another user's.
        OSError
            It is missing, or may not be used.
        """
        path = self.root / name
        with contextlib.ExitStack() as stack:
            if make and not os.path.lexists(self.root):
                stack.enter_context(made_folder(self.root))
            root = stack.enter_context(open_folder(self.root, ours=False))
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=root)
            descriptor = stack.enter_context(open_folder(path, within=root))
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o700:
                os.fchmod(descriptor, 0o700)  # it was there, open to others
            yield TokenFolder(path, descriptor)


@contextlib.contextmanager
def erasing(path: Path) -> Iterator[None]:
    """Let what the system refuses end in an OutputError; what is missing is erased already."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"cannot clear {path}: {error.strerror or error}") from error

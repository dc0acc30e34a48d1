"""How far a re-ranking is, beside its output: the same command goes on after it was killed.

Each part of the work has a file of its own, which appears whole and is its owner's alone. It says
what work it is of (a fingerprint of all that the result depends on) and holds a digest: what does
not fit, or is damaged, is as if it were not there. Nothing is kept of short work.
"""

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import MurankError, OutputError
from murank.files.atomic import abandoned, made_folder, sole_writer, write_files
from murank.files.mapped import parts
from murank.files.plain import file_size, open_file

EVERY = 10.0  # seconds between two savings, at least
_SHARE = 0.01  # of all time that saving may take
_SUFFIX = ".part"
_LONGEST_HEADER = 1 << 16
_LONGEST_NAME = 200  # bytes, of 255 that a file system takes

Arrays = Mapping[str, NDArray[Any]]


def resume_folder(output: Path) -> Path:
    """Return where it is kept what is known of an output that is not there yet."""
    whole = Path(os.path.realpath(output))
    name = os.fsencode(whole.name)
    if len(name) > _LONGEST_NAME:
        name = hashlib.sha256(name).hexdigest().encode()
    return whole.parent / os.fsdecode(b".murank-rerank-" + name)


def is_unfinished(output: Path) -> bool:
    """Whether a run on this output was interrupted, or is at work."""
    return os.path.isdir(resume_folder(output))  # noqa: PTH112 - never raises


@contextlib.contextmanager
def resumable(
    output: Path, fingerprint: Callable[[], str], say: Callable[[str], None]
) -> Iterator["Memory"]:
    """Yield what remembers how far work on `output` is; all is forgotten once it is done.

    `fingerprint` is asked when it is first needed; `say` is told that work goes on, or that it
    could not be kept: that stops nothing.

    Raises
    ------
    OutputError
        Another process is at work on it.
    """
    with contextlib.ExitStack() as stack:
        memory = Memory(resume_folder(output), fingerprint, say, stack)
        memory.claim()
        yield memory
        memory.forget()


@dataclass
class Memory:
    """Keeps parts of work in a folder, not too often."""

    folder: Path
    _fingerprint: Callable[[], str]
    _say: Callable[[str], None]
    _stack: contextlib.ExitStack  # holds the lock
    _is_ours: bool = False  # the folder, and locked
    _is_off: bool = False  # it could not be kept
    _has_told: bool = False
    _saved_at: float = field(default_factory=lambda: time.monotonic())
    _cost: float = 0.0  # seconds that the last saving took

    def part(self, name: str) -> "Part":
        """Return what keeps one part of the work."""
        return Part(name, self)

    def claim(self) -> None:
        """Keep other processes out of what is there."""
        if _is_own_folder(self.folder):
            self._stack.enter_context(sole_writer(self.folder, follow=False))
            self._is_ours = True

    def load(self, name: str) -> Arrays | None:
        """Return what was saved of a part of the same work; None: nothing that can be used."""
        if not self._is_ours:
            return None
        try:
            arrays = _read(self.folder / (name + _SUFFIX), self.fingerprint)
        except (MurankError, ValueError, KeyError, TypeError):
            return None
        if not self._has_told:
            self._has_told = True
            self._say("goes on where an earlier run of this command was interrupted")
        return arrays

    def due(self) -> bool:
        """Whether it is worth the time to save something."""
        return time.monotonic() - self._saved_at >= max(EVERY, self._cost / _SHARE)

    def save(self, name: str, arrays: Arrays) -> None:
        """Keep a part; if that cannot be, say so once and never again try."""
        if self._is_off:
            return
        start = time.monotonic()
        try:
            with made_folder(self.folder):
                if not self._is_ours:
                    self.claim()
                if not self._is_ours:
                    raise OutputError(f"{self.folder} is not a folder of this user; delete it")
                write = _writer(self.fingerprint, arrays)
                write_files(self.folder, {name + _SUFFIX: write})
        except (MurankError, OSError) as error:
            self._is_off = True
            self._say(f"this run cannot be gone on with if it is interrupted: {error}")
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - start

    def forget(self) -> None:
        """Delete what was kept; what else is in the folder stays."""
        if not self._is_ours:
            return
        with contextlib.suppress(OSError):
            for path in self.folder.glob("*" + _SUFFIX):
                path.unlink()
            for name in abandoned(self.folder):
                (self.folder / name).unlink()
            self.folder.rmdir()

    @cached_property
    def fingerprint(self) -> str:
        """Of the work."""
        return self._fingerprint()


@dataclass(frozen=True)
class Part:
    """Keeps one part of the work; a `Checkpoint` of the kernels."""

    name: str
    memory: Memory

    def load(self) -> Arrays | None:
        """Return what was saved last by the same work; None: nothing."""
        return self.memory.load(self.name)

    def due(self) -> bool:
        """Whether it is worth the time to save."""
        return self.memory.due()

    def save(self, state: Arrays) -> None:
        """Keep it."""
        self.memory.save(self.name, state)


def _is_own_folder(path: Path) -> bool:
    """Whether nobody else can have put something there."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return False


def fingerprint_of(words: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | None]) -> str:
    """Return a digest of what work depends on."""
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    for name, array in arrays.items():
        digest.update(f"\n{name} {array is not None}".encode())
        if array is not None:
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            for part in parts(np.asarray(array, order="C")):
                digest.update(part)
    return digest.hexdigest()


def _writer(fingerprint: str, arrays: Arrays) -> Callable[[IO[bytes]], None]:
    def write(file: IO[bytes]) -> None:
        whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        header = {
            "of": fingerprint,
            "arrays": {name: [one.dtype.str, list(one.shape)] for name, one in whole.items()},
            "sha256": _digest(fingerprint, whole),
        }
        file.write(json.dumps(header).encode() + b"\n")
        for array in whole.values():
            file.write(_bytes(array))

    return write


def _read(path: Path, fingerprint: str) -> Arrays:
    """Return the arrays of a part. Raises InputError, ValueError, KeyError, TypeError."""
    size = file_size(path)
    with open_file(path) as file:
        line = file.readline(_LONGEST_HEADER)
        header = json.loads(line)
        if header["of"] != fingerprint:
            raise ValueError(f"{path} is of other work")
        shapes = {
            name: (np.dtype(kind), tuple(shape)) for name, (kind, shape) in header["arrays"].items()
        }
        needed = sum(kind.itemsize * _count(shape) for kind, shape in shapes.values())
        if needed != size - len(line) or any(kind.hasobject for kind, _ in shapes.values()):
            raise ValueError(f"{path} is torn")
        arrays = {}
        for name, (kind, shape) in shapes.items():
            arrays[name] = np.empty(shape, kind)
            if file.readinto(_bytes(arrays[name])) != arrays[name].nbytes:  # type: ignore[attr-defined]
                raise ValueError(f"{path} is torn")
    if _digest(fingerprint, arrays) != header["sha256"]:
        raise ValueError(f"{path} is damaged")
    return arrays


def _count(shape: tuple[int, ...]) -> int:
    if any(not isinstance(one, int) or one < 0 for one in shape):
        raise ValueError("a shape of no array")
    return int(np.prod(shape, dtype=object)) if shape else 1


def _digest(fingerprint: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data

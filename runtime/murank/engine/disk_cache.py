"""Vision tokens on disk, from one run to the next.

A file is tokens and a hash of them, keyed by all that they belong to: image, vision part, what ran
it, shape and type. A file of another image or engine, damaged or put there by a restore, does not
fit, and counts as missing. The hash shows mistakes, not malice: the folder is its owner's alone.
"""

import contextlib
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, OutputError
from murank.engine.memory_cache import Key
from murank.engine.token_files import TokenFile, TokenFolder, TokenFolders, erasing
from murank.folder.contents import EngineFiles
from murank.folder.graph_hash import vision_sha256

Values = NDArray[Any]
_FORMAT = 1  # raised when files are laid out, or tokens computed, in another way
_DIGEST = 32  # bytes
_SHARE = 16  # of the largest size: written before all files are looked at again, and made free
_LOOKS = 100  # at the files within the largest age
_DAY = 86400.0


@dataclass(frozen=True)
class CacheLimits:
    """What may stay in a `cache_dir`, of all engines together. Raises InputError for none."""

    max_mb: int | None = None
    max_days: float | None = None

    def __post_init__(self) -> None:
        if self.max_mb is not None and self.max_mb < 1:
            raise InputError(f"cache_max_mb must be at least 1, got {self.max_mb}")
        if self.max_days is not None and not 0 < self.max_days < math.inf:
            raise InputError(f"cache_max_days must be a number above 0, got {self.max_days}")

    @property
    def bytes(self) -> float:
        """The largest size."""
        return math.inf if self.max_mb is None else self.max_mb << 20

    @property
    def seconds(self) -> float:
        """The largest age."""
        return math.inf if self.max_days is None else self.max_days * _DAY


NO_LIMITS = CacheLimits()


def open_cache(
    root: str | os.PathLike[str] | None, files: EngineFiles, limits: CacheLimits
) -> "DiskCache | None":
    """Return the cache of an engine; None without a folder, or without a scorer.

    Raises
    ------
    InputError
        There are limits, but no folder; or the vision graph is not what the manifest says.
    OutputError
        The folder cannot be used.
    """
    if root is None:
        if limits != NO_LIMITS:
            raise InputError("cache_max_mb and cache_max_days are of cache_dir: pass that too")
        return None
    part = vision_sha256(files)
    return None if part is None else DiskCache(Path(root), part, limits)


class DiskCache:
    """One file an image in a folder of the engine's own. Safe from several threads and processes.

    Limits hold at the start, and whenever something is written: files beyond the largest age go,
    then the oldest ones beyond the largest size.
    """

    def __init__(self, root: Path, part_sha256: str, limits: CacheLimits = NO_LIMITS) -> None:
        """Make the folder, and delete what is beyond the limits or left of killed processes.

        Raises
        ------
        OutputError
            The folder cannot be used: it is a symlink, no folder, or another user's.
        """
        self._folders, self._part, self._limits = TokenFolders(root), part_sha256, limits
        self._name = TokenFolders.name_of(part_sha256)
        self._lock = threading.Lock()
        self._bytes = self._new_bytes = 0  # when last looked at, and written since
        self._next_look = 0.0
        try:
            with self._folders.open(self._name, make=True):
                pass
            self._look()
        except OSError as error:
            raise OutputError(f"cannot use {root} as cache: {error.strerror or error}") from error

    def get(
        self, key: Key, shape: tuple[int, ...], dtype: np.dtype[Any], *, made_by: Sequence[str] = ()
    ) -> Values | None:
        """Return the values if a whole file is there of just this; `made_by` is what computed."""
        size = math.prod(shape) * dtype.itemsize
        try:
            with self._folders.open(self._name) as folder:
                kept = folder.read(key, size + _DIGEST)
        except (OSError, OutputError):
            return None
        if kept is None or time.time() - kept[1] > self._limits.seconds:
            return None
        body, digest = kept[0][:-_DIGEST], kept[0][-_DIGEST:]
        if digest != self._digest(key, shape, dtype, made_by, body):
            return None
        return np.frombuffer(body, dtype).reshape(shape)

    def put(self, key: Key, values: Values, *, made_by: Sequence[str] = ()) -> None:
        """Write a file, whole or not at all; a full disk is no reason to stop scoring."""
        body = np.ascontiguousarray(values).tobytes()
        digest = self._digest(key, values.shape, values.dtype, made_by, body)
        size = len(body) + _DIGEST
        if size > self._limits.bytes:
            return
        with contextlib.suppress(OSError, OutputError):
            self._make_room(size)
            with self._folders.open(self._name, make=True) as folder:
                folder.write(key, body, digest)

    def forget(self, key: Key) -> bool:
        """Delete all files of one image, other engines' too; return whether there were any.

        Raises
        ------
        OutputError
            One may have stayed.
        """
        had_any = False
        with erasing(self._folders.root):
            for name in self._folders.names():
                with erasing(self._folders.root / name), self._folders.open(name) as folder:
                    had_any |= folder.delete_key(key)
        return had_any

    def clear(self) -> None:
        """Delete every file of this engine; OutputError if one may have stayed."""
        with erasing(self._folders.root / self._name), self._folders.open(self._name) as folder:
            for file in folder.files():
                folder.delete(file.name)

    def _digest(
        self, key: Key, shape: Sequence[int], dtype: np.dtype[Any], made_by: Sequence[str],
        body: bytes,
    ) -> bytes:  # fmt: skip
        what = [_FORMAT, key, self._part, list(made_by), list(shape), dtype.str]
        bound = hashlib.blake2b(json.dumps(what).encode(), digest_size=_DIGEST).digest()
        return hashlib.blake2b(body, key=bound, digest_size=_DIGEST).digest()

    def _make_room(self, size: int) -> None:
        """Count what is written; look at all files when that may be too much, or it is time."""
        with self._lock:
            self._new_bytes += size
            limit = self._limits.bytes
            if (
                self._bytes + self._new_bytes > limit
                or self._new_bytes > limit / _SHARE  # others write, too
                or time.time() > self._next_look
            ):
                self._look(size)

    def _look(self, size: int = 0) -> None:
        """Delete what is beyond the limits once `size` more bytes are written."""
        now, limit = time.time(), self._limits.bytes
        kept: list[tuple[TokenFile, str]] = []
        for name in self._folders.names():
            with contextlib.suppress(OSError, OutputError), self._folders.open(name) as folder:
                kept += [(file, name) for file in self._young(folder, now)]
        total = size + sum(file.bytes for file, _ in kept)
        if total > limit:
            goal = max(size, limit - limit / _SHARE)
            for file, name in sorted(kept, key=lambda one: one[0].time):
                if total <= goal:
                    break
                with self._folders.open(name) as folder:
                    folder.delete(file.name)
                total -= file.bytes
        self._bytes, self._new_bytes = total, 0
        self._next_look = now + self._limits.seconds / _LOOKS

    def _young(self, folder: TokenFolder, now: float) -> list[TokenFile]:
        """Return the files that may stay; delete the others."""
        kept = []
        for file in folder.files():
            if file.is_abandoned or now - file.time > self._limits.seconds:
                folder.delete(file.name)
            else:
                kept.append(file)
        return kept

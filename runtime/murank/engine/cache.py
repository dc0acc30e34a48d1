"""Vision tokens by the content of the image: recently used ones in memory, all of them on disk.

The key is a hash of the pixels as the graph takes them. Token ids could never be one: every image
has the same. Vision tokens are biometric data: the folder is its owner's alone, and `clear` empties
both.
"""

import contextlib
import hashlib
import secrets
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import OutputError

Key = str
Values = NDArray[Any]


def content_key(pixels: NDArray[np.uint8]) -> Key:
    """Return the hash of one image's pixels and their shape."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class MemoryCache:
    """Least recently used out first, within a budget of bytes. Safe from several threads."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._values: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    @property
    def budget(self) -> int:
        """Bytes that the values may have together."""
        return self._budget

    def get(self, key: Key) -> Any:
        """Return the value, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Key, value: Any, size: int) -> None:
        """Keep a value of `size` bytes, unless it alone is over the budget."""
        if size > self._budget:
            return
        with self._lock:
            if key in self._values:
                self.bytes -= self._values.pop(key)[1]
            self._values[key] = (value, size)
            self.bytes += size
            while self.bytes > self._budget:
                self.bytes -= self._values.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.bytes = 0


class DiskCache:
    """One file an image in a folder of the engine's own; a damaged file counts as missing."""

    def __init__(self, folder: Path, engine_sha256: str) -> None:
        self._folder = folder / f"vision-{engine_sha256[:16]}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)  # it may have been there, open to others
        except OSError as error:
            raise OutputError(f"cannot use {folder} as cache: {error.strerror or error}") from error

    def get(self, key: Key, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Values | None:
        """Return the values if a whole file of that shape and type is there."""
        try:
            raw = (self._folder / key).read_bytes()
        except OSError:
            return None
        body, digest = raw[:-32], raw[-32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        if len(body) != int(np.prod(shape)) * dtype.itemsize:
            return None
        return np.frombuffer(body, dtype).reshape(shape)

    def put(self, key: Key, values: Values) -> None:
        """Write a file, whole or not at all; a full disk is no reason to stop scoring."""
        body = np.ascontiguousarray(values).tobytes()
        aside = self._folder / f".{secrets.token_hex(8)}"
        with contextlib.suppress(OSError):
            try:
                with aside.open("xb") as file:
                    aside.chmod(0o600)
                    file.write(body + hashlib.sha256(body).digest())
                aside.replace(self._folder / key)
            finally:
                aside.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete every file of this engine; OutputError if one stays."""
        try:
            for file in self._folder.iterdir():
                file.unlink(missing_ok=True)
        except FileNotFoundError:
            return  # the whole folder has been deleted
        except OSError as error:
            raise OutputError(f"cannot clear {self._folder}: {error.strerror or error}") from error

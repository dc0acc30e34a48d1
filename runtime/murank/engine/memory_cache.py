"""What is kept of images in memory, by their content: tokens, K/V prefixes; those used recently.

The key is a hash of the pixels as the graph takes them. Token ids could never be one: every image
has the same.
"""

import hashlib
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

Key = str


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

    def forget(self, key: Key) -> bool:
        """Drop one value; return whether it was there."""
        with self._lock:
            if key not in self._values:
                return False
            self.bytes -= self._values.pop(key)[1]
            return True

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.bytes = 0

"""What is kept of images in memory, by their content: tokens, K/V prefixes; those used recently.

The key is a hash of the pixels as the graph takes them. Token ids could never be one: every image
has the same.
"""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.images import ReadyImage
from murank.images.preprocess import pixels_key

Key = str


@dataclass(frozen=True)
class KeptImage:
    """Stands for an image whose vision tokens are kept: it need not be decoded again."""

    key: Key


class NotKeptError(Exception):
    """The tokens of a KeptImage are kept no more: it must be decoded after all."""


ShownImage = NDArray[np.uint8] | ReadyImage | KeptImage  # pixels [3,H,W], or what stands for them


def content_key(image: ShownImage) -> Key:
    """Return the hash of one image's pixels and their shape."""
    return image.key if isinstance(image, (ReadyImage, KeptImage)) else pixels_key(image)


def pixels_of_shown(image: ShownImage) -> NDArray[np.uint8]:
    """Return the pixels [3,H,W]. Raises NotKeptError if there are none."""
    if isinstance(image, KeptImage):
        raise NotKeptError
    return image.pixels if isinstance(image, ReadyImage) else image


def file_key(data: bytes) -> Key:
    """Return the hash of an image's file."""
    return hashlib.sha256(data).hexdigest()


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

    def forget_value(self, value: Any) -> None:
        """Drop all that are this value."""
        with self._lock:
            keys = [key for key, one in self._values.items() if one[0] == value]
        for key in keys:
            self.forget(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self.bytes = 0

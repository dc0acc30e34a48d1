"""Uploads by way of pinned memory: what is uploaded may change as soon as the call returns."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST = 1 << 20  # bytes


class Staging:
    """One piece of pinned memory of one stream. Calls from several threads are safe.

    A copy from pageable memory is staged by the driver before it returns, but not where the GPU
    reads the CPU's memory itself (Thor, Grace): there it may read it later. A copy from pinned
    memory always does. So the source is copied here by the CPU, and this memory is not written
    again before the event behind the copy from it has passed.
    """

    def __init__(self, driver: Any, stream: Any) -> None:
        self._driver, self._stream = driver, stream
        self._done = driver.Event(driver.event_flags.DISABLE_TIMING)
        self._bytes: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._lock = threading.Lock()

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue the copy of a contiguous array, behind all work so far."""
        with self._lock:
            # Waits for the upload before this one, and not for the work queued behind that.
            self._done.synchronize()
            if array.nbytes > self._bytes.nbytes:
                size = max(_LEAST, array.nbytes)
                self._bytes = self._driver.pagelocked_empty(size, np.uint8)
            part = self._bytes[: array.nbytes]
            part[:] = array.reshape(-1).view(np.uint8)
            self._driver.memcpy_htod_async(address, part, self._stream)
            self._done.record(self._stream)

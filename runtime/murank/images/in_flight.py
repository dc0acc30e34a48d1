"""One budget of pixels for all threads that decode."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelsInFlight:
    """Lets images in while all inside have no more pixels than allowed; one may always be in.

    Whoever came first goes first: a large image is not passed by small ones for ever.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self.pixels = 0  # inside

    @contextmanager
    def hold(self, pixels: int, most: int) -> Iterator[None]:
        """Wait for room for so many pixels, and keep it while inside."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self.pixels or self.pixels + pixels <= most)
            self.pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self.pixels -= pixels
                self._changed.notify_all()


in_flight = PixelsInFlight()  # of the process: memory is

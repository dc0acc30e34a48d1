"""Time, as benchmarks read it; tests bring a clock of their own."""

import time


class Clock:
    """The real one."""

    def now(self) -> float:
        """Seconds that only go forward."""
        return time.perf_counter()

    def cpu(self) -> float:
        """CPU seconds of this process, all threads."""
        return time.process_time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

"""The steps of an export: told as they begin, timed."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Report = Callable[[str], None]
NOTE = "note: "  # begins a line that the reader of the results must know


@dataclass
class Steps:
    """Tells and times the steps."""

    report: Report
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self.report(f"{name} ...")
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)

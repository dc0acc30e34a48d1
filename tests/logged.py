"""What the library logs, told from what it does not."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def logged(pattern: str) -> Iterator[None]:
    """One warning is logged inside, and the pattern is found in it."""
    kept, log = _Kept(), logging.getLogger("murank")
    log.addHandler(kept)
    try:
        yield
    finally:
        log.removeHandler(kept)
    (message,) = kept.messages
    assert re.search(pattern, message), message

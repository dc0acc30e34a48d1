"""What a worker process logs, handed over to whoever started it, to be logged there."""

import logging
from collections.abc import Iterable
from queue import SimpleQueue

Logged = tuple[str, int, str]  # name of the log, level, text


class HandedLog(logging.Handler):
    """Keeps what any thread logs; one thread takes it."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: SimpleQueue[Logged] = SimpleQueue()

    def listen(self) -> None:
        """Begin."""
        logging.getLogger("murank").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self._kept.put((record.name, record.levelno, record.getMessage()))

    def taken(self) -> list[Logged]:
        """Return what is new."""
        return [self._kept.get() for _ in range(self._kept.qsize())]


def log_again(logged: Iterable[Logged]) -> None:
    """Log what another process did."""
    for name, level, text in logged:
        logging.getLogger(name).log(level, "%s", text)

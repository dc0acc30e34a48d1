"""A worker process: `main`, with the descriptor of a socket as the only argument.

It is sent what makes its work, then units; it sends ("ready", None), and for each unit ("done",
answer), or ("failed", what was raised) and ends. It ends when nobody is at the other side, within
a second also when it hangs.
"""

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

from murank._exceptions import InputError, MachineError, OutputError, UsageError
from murank.crew.crew_protocol import BrokenWorkError, UnitWork

AHEAD = 2  # units that a worker has at most: the one in work, and the one begun


def main() -> None:
    """UnitWork until told otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this decides
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    # The other side is gone, which is all there is to know.
    with contextlib.suppress(EOFError, OSError):
        try:
            work = pickle.loads(connection.recv_bytes())()  # noqa: S301 - our own parent
            connection.send(("ready", None))
            _serve(connection, work)
        except (EOFError, OSError):
            raise
        except BaseException as error:  # noqa: BLE001 - told to whoever started this
            connection.send(("failed", sendable(error)))
    os._exit(0)  # threads that decode what nobody wants any more are not waited for


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _serve(connection: Connection, work: UnitWork) -> None:
    waiting: deque[tuple[Any, Any]] = deque()
    while True:
        while len(waiting) < AHEAD and (not waiting or connection.poll()):
            unit = connection.recv()
            waiting.append((unit, work.begin(unit)))
        connection.send(("done", work.finish(*waiting.popleft())))


def sendable(error: BaseException) -> BaseException:
    """Return what can be pickled: the public kind of murank's errors, others as their traceback."""
    for kind in type(error).__mro__:
        if kind in (InputError, OutputError, UsageError, MachineError):
            named: BaseException = kind(str(error))
            return named
    if isinstance(error, MemoryError):
        return MemoryError(str(error))
    return BrokenWorkError("".join(traceback.format_exception(error)))

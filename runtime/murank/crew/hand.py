"""A worker process: `main`, with the descriptor of a socket as the only argument.

It is sent what makes its work, then units; it sends ("ready", None), and for each unit ("done",
answer), or ("failed", what was raised) and ends; before each of them ("said", what was logged), if
anything was: it is for the other side to log. It ends when nobody is there, within a second also
when it hangs.
"""

import contextlib
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from murank._exceptions import InputError, MachineError, OutputError, UsageError
from murank.crew.crew_protocol import BrokenWorkError, UnitWork
from murank.crew.handed_log import HandedLog

AHEAD = 2  # units that a worker has at most: the one in work, and the one begun

_log = HandedLog()


def main() -> None:
    """UnitWork until told otherwise."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    _log.listen()
    with contextlib.suppress(_NobodyThereError):
        try:
            make = pickle.loads(_received(connection.recv_bytes))  # noqa: S301 - our own parent
            work = make()
            _send(connection, ("ready", None))
            _serve(connection, work)
        except _NobodyThereError:
            raise
        except BaseException as error:  # noqa: BLE001 - told to whoever started this
            _send(connection, ("failed", sendable(error)))
    os._exit(0)  # threads that decode what nobody wants any more are not waited for


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _serve(connection: Connection, work: UnitWork) -> None:
    """Answer units; each is begun as it comes, while another is in work."""
    begun: SimpleQueue[tuple[Any, Any] | BaseException] = SimpleQueue()
    threading.Thread(target=_begin, args=(connection, work, begun), daemon=True).start()
    while True:
        one = begun.get()
        if isinstance(one, BaseException):
            raise one
        _send(connection, ("done", work.finish(*one)))


def _begin(connection: Connection, work: UnitWork, begun: "SimpleQueue[Any]") -> None:
    try:
        while True:
            unit = _received(connection.recv)
            begun.put((unit, work.begin(unit)))
    except BaseException as error:  # noqa: BLE001 - raised where units are awaited
        begun.put(error)


class _NobodyThereError(Exception):
    """The other side of the socket is gone, which is all there is to know."""


def _received(receive: Callable[[], Any]) -> Any:
    try:
        return receive()
    except (EOFError, OSError) as error:
        raise _NobodyThereError from error


def _send(connection: Connection, said: tuple[str, Any]) -> None:
    try:
        if logged := _log.taken():
            connection.send(("said", logged))
        connection.send(said)
    except OSError as error:
        raise _NobodyThereError from error


def sendable(error: BaseException) -> BaseException:
    """Return what can be pickled: the public kind of murank's errors, others as their traceback."""
    for kind in type(error).__mro__:
        if kind in (InputError, OutputError, UsageError, MachineError):
            named: BaseException = kind(str(error))
            return named
    if isinstance(error, OSError):
        return MachineError(f"a worker process: {error}")
    if isinstance(error, MemoryError):
        return MemoryError(str(error))
    return BrokenWorkError("".join(traceback.format_exception(error)))

"""What an actor of Ray runs."""

import pickle
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from typing import Any

from murank._exceptions import InputError, MachineError
from murank._version import __version__
from murank.crew.crew_protocol import Make
from murank.crew.hand import sendable
from murank.crew.patience import Endless
from murank.crew.processes import Processes

UNIT, ANSWER = "unit", "answer"  # columns


class RayHand:
    """One unit a call, worked on in a process below the actor, which begins that of another call.

    A unit that ends that process leaves the actor alone: Ray would try it for ever. What is raised
    is an answer, too: Ray would raise it as something of its own.
    """

    def __init__(self, make: Make, version: str) -> None:
        self._version = version
        self._arrivals, self._bell = Pipe(duplex=False)
        self._crew = Processes(make, 1, patience=Endless(), arrivals=self._arrivals)
        self._inbox = _Inbox()
        self._calls: set[_Call] = set()  # that wait
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, batch: Any) -> Any:
        """Return a table of one row with (answers or what was raised, seconds), pickled."""
        import pyarrow

        start = time.monotonic()
        try:
            if self._version != __version__:
                raise MachineError(f"murank {__version__} is installed, not {self._version}")
            unit = pickle.loads(batch[UNIT][0].as_py())  # noqa: S301 - our own driver's
            answers: Any = self._answers(unit)
        except Exception as error:  # noqa: BLE001 - told to the driver
            answers = _placed(sendable(error))
        row = pickle.dumps((answers, time.monotonic() - start))
        return pyarrow.table({ANSWER: pyarrow.array([row], pyarrow.binary())})

    def _answers(self, unit: Any) -> list[tuple[Any, Any]]:
        call = _Call()
        self._calls.add(call)
        self._inbox.append(_Asked(unit, call))
        self._bell.send_bytes(b"1")
        call.done.wait()
        self._calls.discard(call)
        if call.error is not None:
            raise call.error
        return call.answers

    def _work(self) -> None:
        """Do what calls put into the inbox."""
        while True:
            self._arrivals.recv_bytes()
            try:
                for asked, answer in self._crew.answers(self._inbox):
                    asked.call.take(asked.unit, answer)
            except Exception as error:  # noqa: BLE001 - raised by the calls
                self._inbox.clear()
                for call in [*self._calls]:
                    call.error = error
                    call.done.set()


class _Inbox(deque["_Asked"]):
    """Iterates over what is there now, and later over what has come."""

    def __iter__(self) -> Iterator["_Asked"]:
        return self

    def __next__(self) -> "_Asked":
        if not self:
            raise StopIteration
        return self.popleft()


class _Call:
    """What waits for the answers of a unit."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, Any]] = []
        self.error: Exception | None = None
        self.done = threading.Event()
        self.open = 1  # parts without an answer

    def take(self, unit: Any, answer: Any) -> None:
        self.answers.append((unit, answer))
        self.open -= 1
        if not self.open:
            self.done.set()


class _Asked:
    """A unit or a part of one, and whose it is; in the process that works it is the unit alone."""

    def __init__(self, unit: Any, call: _Call) -> None:
        self.unit = unit
        self.call = call

    def split(self) -> "Sequence[_Asked]":
        """Return smaller ones of the same call."""
        parts = [_Asked(part, self.call) for part in self.unit.split()]
        self.call.open += max(0, len(parts) - 1)
        return parts

    def __reduce__(self) -> Any:
        return _same, (self.unit,)


def _same(unit: Any) -> Any:
    return unit


def _placed(error: BaseException) -> BaseException:
    """Say on which node something is missing."""
    if type(error) not in (InputError, MachineError):
        return error
    from ray.util import get_node_ip_address

    return type(error)(f"{error} (on the Ray node {get_node_ip_address()})")

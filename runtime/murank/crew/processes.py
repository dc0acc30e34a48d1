"""Several processes of this machine, started anew where one ends."""

import contextlib
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from murank._exceptions import MachineError
from murank.crew.crew_protocol import Lost, Make
from murank.crew.hand import AHEAD
from murank.crew.handed_log import log_again
from murank.crew.patience import Patience

# Whoever started this decides about an interrupt, from the first moment on.
_HAND = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from murank.crew.hand import main; main()"
)
_SENDING = 60  # seconds that a process may leave a unit lying
_HOPELESS = 20  # processes that end one after the other without an answer between


class _Hand:
    """One process, and what it has to do."""

    def __init__(self, make: bytes, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SENDING, 0))
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - this Python, our own module
                [sys.executable, "-c", _HAND, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env={**os.environ, **environment},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self.connection = Connection(ours.detach())
        self.doing: deque[_Task] = deque()
        self.is_ready, self.is_gone = False, False
        self._since = time.monotonic()
        with contextlib.suppress(OSError):  # it has ended already: shows when it is waited for
            self.connection.send_bytes(make)

    def is_awaited(self, supply: "_Supply") -> bool:
        """Whether it will say something: an answer, that it is ready, or that it has ended."""
        return bool(self.doing) or self.is_gone or (not self.is_ready and supply.has_more)

    def give(self, task: "_Task") -> bool:
        """Send a unit; return whether it went: a process that is gone, or hangs, takes none."""
        if not self.doing:
            self._since = time.monotonic()
        try:
            self.connection.send(task.unit)
        except OSError:
            self.is_gone = True
            self.process.kill()
            return False
        self.doing.append(task)
        return True

    def done(self) -> tuple["_Task", float]:
        """Return the unit that was answered, and the seconds it took."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return self.doing.popleft(), seconds

    def end(self, grace: float = 5.0) -> int:
        """Let it go; return how it ended."""
        self.connection.close()
        try:
            return self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class _Task:
    """A unit, and how many processes ended over it."""

    def __init__(self, unit: Any, ended: int = 0) -> None:
        self.unit = unit
        self.ended = ended


class Processes:
    """`size` worker processes of this machine."""

    def __init__(
        self,
        make: Make,
        size: int,
        environment: Sequence[Mapping[str, str]] = (),
        *,
        patience: Patience | None = None,
        arrivals: Connection | None = None,
    ) -> None:
        """`environment`: variables of each, such as which device it sees; started at first use.

        `arrivals` says by some bytes that units, which had an end, have more.
        """
        self.size = size
        self._make = pickle.dumps(make)
        self._environment = list(environment) or [{}] * size
        self._hands: list[_Hand] = []
        self._ended = 0  # one after the other
        self._patience = patience or Patience()
        self._arrivals = [] if arrivals is None else [arrivals]

    def answers(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield each unit, or parts of it, and its answer, as they come."""
        supply = _Supply(units)
        try:
            while True:
                self._give(supply)
                busy = {hand.connection: hand for hand in self._hands if hand.is_awaited(supply)}
                if not busy and not supply.has_more:
                    return
                if not busy:
                    continue
                for connection in self._waited([*busy, *self._arrivals]):
                    if connection in busy:
                        yield from self._heard(busy[connection], supply)
                    else:
                        connection.recv_bytes()
        except BaseException:
            self.close(grace=0.1)
            raise

    def close(self, grace: float = 5.0) -> None:
        """End all of them."""
        for hand in self._hands:
            hand.connection.close()
        for hand in self._hands:
            hand.end(grace)
        self._hands.clear()

    def _give(self, supply: "_Supply") -> None:
        while len(self._hands) < self.size and supply.has_more:
            variables = self._environment[len(self._hands)]
            self._hands.append(_Hand(self._make, variables))
        for _ in range(AHEAD):  # in turn, so that nobody has two while another has none
            for hand in [one for one in self._hands if one.is_ready and not one.is_gone]:
                task = supply.next_for(hand)
                if task is not None and not hand.give(task):
                    supply.put_back(task)  # it never was in work

    def _waited(self, connections: Sequence[Connection]) -> Sequence[Any]:
        heard = wait(connections, self._patience.seconds)
        if not heard:
            raise self._patience.ended()
        return heard

    def _heard(self, hand: _Hand, supply: "_Supply") -> Iterator[tuple[Any, Any]]:
        try:
            kind, what = hand.connection.recv()
        except (EOFError, OSError):
            yield from self._replace(self._hands.index(hand), supply)
            return
        if kind == "failed":
            raise what
        if kind == "said":
            log_again(what)
            return
        if kind == "ready":
            hand.is_ready = True
            return
        task, seconds = hand.done()
        self._patience.answered(seconds)
        self._ended = 0
        yield task.unit, what

    def _replace(self, number: int, supply: "_Supply") -> Sequence[tuple[Any, Any]]:
        """Start another process for one that ended, and settle what that did."""
        hand = self._hands[number]
        how = _ending(hand.end())
        self._ended += 1
        if not hand.is_ready:
            raise MachineError(f"a worker process ended while it was loading ({how})")
        if self._ended >= _HOPELESS:
            raise MachineError(f"{self._ended} worker processes ended one after the other ({how})")
        self._hands[number] = _Hand(self._make, self._environment[number])
        return supply.returned(list(hand.doing), how)


class _Supply:
    """Units still to be done: those of processes that ended come first, each alone."""

    def __init__(self, units: Iterable[Any]) -> None:
        self._units = iter(units)
        self._ahead: deque[_Task] = deque()
        self._suspects: deque[_Task] = deque()

    @property
    def has_more(self) -> bool:
        if not self._ahead and not self._suspects:
            self._ahead.extend(_Task(unit) for unit in _first(self._units))
        return bool(self._ahead or self._suspects)

    def put_back(self, task: _Task) -> None:
        """Take a unit back that nobody began."""
        (self._suspects if task.ended else self._ahead).appendleft(task)

    def next_for(self, hand: _Hand) -> _Task | None:
        """Return what it should be given now, if anything."""
        if len(hand.doing) >= AHEAD or any(task.ended for task in hand.doing):
            return None
        if self._suspects:
            return None if hand.doing else self._suspects.popleft()
        return self._ahead.popleft() if self.has_more else None

    def returned(self, tasks: Sequence[_Task], how: str) -> Sequence[tuple[Any, Any]]:
        """Take back what a process had when it ended; return what cannot be done at all."""
        if not tasks:
            return []
        culprit, *others = tasks  # the first was in work
        self._ahead.extendleft(reversed(others))
        if culprit.ended == 0:
            self._suspects.append(_Task(culprit.unit, 1))
            return []
        parts = culprit.unit.split()
        self._suspects.extend(_Task(part, 1) for part in parts)
        lost = Lost(f"it ends the process that works on it ({how})")
        return [] if parts else [(culprit.unit, lost)]


def _first(units: Iterator[Any]) -> Iterator[Any]:
    for unit in units:
        yield unit
        return


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit {code}"

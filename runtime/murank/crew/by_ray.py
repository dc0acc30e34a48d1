"""Actors of Ray on many machines: Ray Data's pool, which outlives actors and nodes that go."""

import os
import pickle
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from murank._exceptions import MachineError
from murank._version import __version__
from murank.crew.crew_protocol import Make, UnitWork
from murank.crew.patience import Patience
from murank.crew.ray_cluster import RayCluster
from murank.crew.ray_hand import ANSWER, UNIT, RayHand

_AT_ONCE, _AHEAD = 2, 3  # units that an actor has in its hands, and has at most; one is in work
_LETTING_GO = 30  # seconds that Ray may take to end its actors
_PASS_BYTES = 128 << 20  # of the units that Ray is given at once, and keeps until all are done


class RayActors:
    """One actor for each CPU of the cluster, or `cpus` of them, or for each GPU."""

    def __init__(self, make: Make, address: str = "", *, cpus: int = 1, on_gpus: bool) -> None:
        """`address`: "HOST:PORT", or "" for a new cluster on this machine.

        With `on_gpus`, a cluster that has GPUs has an actor for each of them.

        Raises MachineError if Ray is not installed.
        """
        # Paths may be relative; where this folder is missing, so are the files.
        self._make = partial(_make_in, Path.cwd(), make)
        self._cluster = RayCluster(address)
        self._cpus = cpus
        self._on_gpus = on_gpus
        self._patience = Patience()
        self._thread: threading.Thread | None = None

    @property
    def size(self) -> int:
        """How many actors there are room for. Raises MachineError if there is no cluster."""
        return max(1, self._count)

    @cached_property
    def _gpus(self) -> int:
        return self._cluster.count("GPU") if self._on_gpus else 0

    @cached_property
    def _count(self) -> int:
        return self._gpus or self._cluster.count("CPU", self._cpus)

    def answers(self, units: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield each unit, or parts of it, and its answer, as they come."""
        supply = iter(units)
        while some := _pass(supply):
            rows: SimpleQueue[bytes | Exception] = SimpleQueue()
            self._count  # noqa: B018 - connects, which must be done in the main thread
            self._thread = threading.Thread(target=self._work, args=(some, rows), daemon=True)
            self._thread.start()
            for _ in some:
                yield from self._next(rows)
            self._thread.join(_LETTING_GO)

    def close(self) -> None:
        """Leave the cluster; one of our own ends."""
        if self._thread is not None and self._thread.is_alive():
            _stop_passes()
            self._thread.join(_LETTING_GO)
        self._cluster.close()

    def _next(self, rows: "SimpleQueue[bytes | Exception]") -> list[tuple[Any, Any]]:
        try:
            row = rows.get(timeout=self._patience.seconds)
        except Empty:
            raise self._patience.ended() from None
        if isinstance(row, Exception):
            raise MachineError(f"Ray gave up: {' '.join(str(row).split())}") from row
        answers, seconds = pickle.loads(row)  # noqa: S301 - our own actor's
        if isinstance(answers, BaseException):
            raise answers
        self._patience.answered(seconds)
        found: list[tuple[Any, Any]] = answers
        return found

    def _work(self, units: list[bytes], rows: "SimpleQueue[bytes | Exception]") -> None:
        try:
            for batch in self._dataset(units).iter_batches(
                batch_size=None, prefetch_batches=0, batch_format="pyarrow"
            ):
                for row in batch[ANSWER]:
                    rows.put(row.as_py())
        except Exception as error:  # noqa: BLE001 - raised where answers are waited for
            rows.put(error)

    def _dataset(self, units: list[bytes]) -> Any:
        data = self._cluster.ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        size = min(self.size, len(units))
        # A block is a unit: what an actor takes with it when it goes.
        blocks = data.from_items([{UNIT: unit} for unit in units], override_num_blocks=len(units))
        return blocks.map_batches(
            RayHand, fn_constructor_args=(self._make, __version__),
            batch_size=1, batch_format="pyarrow",
            # Fewer may remain: an actor whose node went waits for the place of one that is idle.
            compute=data.ActorPoolStrategy(
                min_size=1, max_size=size, initial_size=size,
                max_tasks_in_flight_per_actor=_AHEAD, max_concurrent_calls_per_actor=_AT_ONCE,
                enable_true_multi_threading=True,  # RayHand begins one while another is in work
            ),
            **({"num_cpus": 0, "num_gpus": 1} if self._gpus else {"num_cpus": self._cpus}),
        )  # fmt: skip


def _pass(units: Iterator[Any]) -> list[bytes]:
    """Take as many as Ray is given at once."""
    taken: list[bytes] = []
    total = 0
    while total < _PASS_BYTES:
        for unit in units:
            taken.append(pickle.dumps(unit))
            total += len(taken[-1])
            break
        else:
            break
    return taken


def _stop_passes() -> None:
    """Stop Ray Data's own threads: native code ends the process if they outlive the connection."""
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    for thread in threading.enumerate():
        if isinstance(thread, StreamingExecutor):
            thread.shutdown(force=False)


def _make_in(folder: Path, make: Make) -> UnitWork:
    if folder.is_dir():
        os.chdir(folder)
    return make()

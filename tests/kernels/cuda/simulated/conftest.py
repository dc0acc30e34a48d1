"""These tests run in Numba's CUDA simulator only; `test_simulator.py` starts it."""

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
collect_ignore_glob = [] if SIMULATED else ["test_*.py"]
STUCK = 60  # seconds after which a block whose threads do not all reach a barrier is given up


@pytest.fixture(autouse=True, scope="session")
def quick_barriers() -> Iterator[None]:
    """Let the threads of a simulated block wait for each other at a real barrier.

    The simulator polls its threads, which makes a barrier a hundred times slower. This one is also
    stricter: a thread that ends while others wait is an error here, as it can be on a GPU.
    """
    kernel: Any = importlib.import_module("numba.cuda.simulator.kernel")

    class Thread(kernel.BlockThread):  # type: ignore[misc]
        def syncthreads(self) -> None:
            self._manager.barrier.wait(STUCK)

    class Manager(kernel.BlockManager):  # type: ignore[misc]
        def run(self, grid_point: Any, *args: Any) -> None:
            self.barrier = threading.Barrier(int(np.prod(self._block_dim)))
            threads: list[Any] = [
                Thread(lambda: self._f(*args), self, grid_point, place, self._debug)
                for place in np.ndindex(*self._block_dim)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            failed = [t.exception for t in threads if t.exception is not None]
            for error, trace in failed:
                raise error.with_traceback(trace)

    before = kernel.BlockManager
    kernel.BlockManager = Manager
    yield
    kernel.BlockManager = before


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make tiles of few rows, so that a small N has several."""
    from murank_kernels.cuda import _plan

    def set_rows(rows: int) -> None:
        monkeypatch.setattr(_plan, "MOST_ROWS", rows)
        monkeypatch.setattr(_plan, "LEAST_ROWS", 1)

    return set_rows

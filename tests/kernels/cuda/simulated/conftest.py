"""These tests run in Numba's CUDA simulator only; `test_simulator.py` starts it."""

import os
from collections.abc import Callable, Iterator

import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
collect_ignore_glob = [] if SIMULATED else ["test_*.py"]


@pytest.fixture(autouse=True, scope="session")
def threads_in_turn() -> Iterator[None]:
    """Run blocks as `simulated_blocks` does: quicker, and stricter."""
    from simulated_blocks import in_turn

    with in_turn():
        yield


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make tiles of few rows, so that a small N has several."""
    from murank_kernels.cuda import plan

    def set_rows(rows: int) -> None:
        monkeypatch.setattr(plan, "MOST_ROWS", rows)
        monkeypatch.setattr(plan, "LEAST_ROWS", 1)

    return set_rows

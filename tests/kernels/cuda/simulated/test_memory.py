"""What fits is planned; what does not fit after all is tried in smaller tiles, then refused."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from murank_kernels import DeviceUnavailableError, k_reciprocal
from murank_kernels.cuda import plan
from murank_kernels.cuda.simulated import SimulatedArrays

FEATURES = np.random.default_rng(9).standard_normal((40, 8)).astype(np.float32)


class Memory:
    """Fails allocations of more than `limit` values; keeps what was asked for."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[int] = []
        self.released = 0

    def empty(self, shape: Any, dtype: Any) -> Any:
        size = int(np.prod(shape))
        self.asked.append(size)
        if size > self.limit:
            raise MemoryError(f"{size} values")
        return np.empty(shape, dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory(1000)
    monkeypatch.setattr(SimulatedArrays, "xp", made)

    def release(_: SimulatedArrays) -> None:
        made.released += 1

    monkeypatch.setattr(SimulatedArrays, "release", release)
    return made


def test_smaller_tiles_give_the_same(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "LEAST_ROWS", 5)
    actual = k_reciprocal(FEATURES, 8, k1=4, k2=2, device="cuda")
    assert_allclose(actual, k_reciprocal(FEATURES, 8, k1=4, k2=2), atol=1e-6)
    assert [size for size in memory.asked if size % 40 == 0][:2] == [40 * 40, 20 * 40]
    assert memory.released == 1


def test_memory_that_is_full(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.limit = 300
    monkeypatch.setattr(plan, "LEAST_ROWS", 16)
    with pytest.raises(DeviceUnavailableError, match=r"memory is full: 640 values"):
        k_reciprocal(FEATURES, 8, k1=4, k2=2, device="cuda")


def test_memory_that_was_never_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("murank_kernels.cuda.simulated.MEMORY", 20_000)
    message = r"search of 40 rows needs 0\.00 GiB of GPU memory, 0\.00 GiB are free; free some"
    with pytest.raises(DeviceUnavailableError, match=message):
        k_reciprocal(FEATURES, 8, k1=4, k2=2, device="cuda")


def test_the_plan_of_real_sizes() -> None:
    """Market-1501 on 8 GB, MSMT17 on 139 GiB, and a million images, which take smaller tiles."""
    gib = 1 << 30
    assert plan.tile_rows(6 * gib, 19_281, 25, 1) == 4096
    assert plan.tile_rows(130 * gib, 93_820, 15, 2) == 4096
    rows = plan.tile_rows(16 * gib, 1_000_000, 15, 1)
    assert 1000 < rows < 4096
    assert 2 * 4 * rows * 1_000_000 + 1_000_000 * 15 * 28 < 16 * gib
    with pytest.raises(DeviceUnavailableError, match=r"needs 0\.81 GiB of GPU memory, 0\.50"):
        plan.tile_rows(gib // 2, 1_000_000, 15, 1)
    assert plan.block_rows(130 * gib, 19_000) == gib // (4 * 19_000)
    rows = plan.block_rows(gib, 19_000)
    assert gib // 4 - 8 * 19_000 < rows * 8 * 19_000 <= gib // 4
    assert plan.rows_beside(130 * gib, 19_000) == 4096
    assert gib // 8 - 4 * 10**6 < 4 * 10**6 * plan.rows_beside(gib, 10**6) <= gib // 8
    assert plan.rows_beside(1, 19_000) == 1
    assert plan.block_rows(1, 19_000) == 1
    assert plan.keeps_measured(gib, 3368, 15_913)
    assert not plan.keeps_measured(gib // 2, 3368, 50_000)

"""benchmarks/gpu: what its sections find, tried on the CPU and with made-up faults."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu.accelerators import Cpu, CupyGpu
from gpu.child import main
from gpu.context import Context, Rates, write_rates, write_times
from gpu.inputs import TINY, made_inputs
from gpu.rows import read_row
from gpu.sections import correctness, floor, kernel_times, runtimes


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(device="cpu", quick=True, run=tmp_path, work=tmp_path / "work", config=None)


def test_correctness_on_the_cpu_writes_its_rows(context: Context) -> None:
    file = context.run / "rows"
    main("correctness", str(file), context.to_json())
    rows = [read_row(line) for line in file.read_text().splitlines()]
    found = [row for row in rows if row is not None]
    assert len(found) == len(rows) == 15
    assert {row.what: row.state for row in found if row.state != "right"} == {}
    assert sum(row.what.startswith("golden") for row in found) == 8


def off(method: Callable[..., Any], amount: float, entries: int) -> Callable[..., Any]:
    """A method whose blocks are wrong on any device but the CPU."""

    class Wrong:
        def __init__(self, made: Any) -> None:
            self._rows = made.dense()
            self._rows.reshape(-1)[:entries] += amount

        def __iter__(self) -> Iterator[tuple[int, Any]]:
            yield 0, self._rows

        def top_k(self, k: int) -> tuple[Any, Any]:
            order = np.argsort(self._rows, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(self._rows, order, axis=1), order

    def call(device: str) -> Any:
        made = method(device="cpu")
        return made if device == "cpu" else Wrong(made)

    return call


@pytest.mark.parametrize(
    ("amount", "entries", "state"),
    [(0.0, 0, "right"), (1e-6, 5100, "right"), (1e-3, 1, "wrong"), (float("nan"), 1, "wrong")],
)
def test_a_wrong_kernel_is_seen(amount: float, entries: int, state: str) -> None:
    method = correctness.methods(made_inputs(TINY))["simple"]
    row = correctness.against_cpu("simple", off(method, amount, entries), "elsewhere")
    assert row.state == state


def test_a_wrong_order_is_seen() -> None:
    method = correctness.methods(made_inputs(TINY))["simple"]

    class Swapped:
        def __init__(self, made: Any) -> None:
            self._made = made

        def __iter__(self) -> Iterator[Any]:
            return iter(self._made)

        def dense(self) -> Any:
            return self._made.dense()

        def top_k(self, k: int) -> tuple[Any, Any]:
            best, indices = self._made.top_k(k)
            indices[0, :2] = indices[0, 1::-1].copy()
            return best, indices

    row = correctness.against_cpu("simple", lambda device: Swapped(method(device=device)), "cpu")
    assert row.state == "wrong"
    assert "not what a stable sort" in row.note


def test_one_golden_entry_is_one_too_many() -> None:
    wanted = np.full((10, 2000), 0.5)
    found = wanted.astype(np.float32)
    assert correctness.compared("a", found, wanted).state == "right"
    found[0, 0] += np.float32(1e-5)
    assert correctness.compared("a", found, wanted).state == "wrong"
    assert correctness.compared("a", found, wanted, most=1e-4).state == "right"
    assert correctness.compared("a", found[:5], wanted).state == "wrong"


def test_large_values_may_round() -> None:
    wanted = np.array([[5130.0001]])
    assert correctness.compared("a", wanted.astype(np.float32), wanted).state == "right"
    assert correctness.compared("a", wanted + 1e-3, wanted).state == "wrong"


def test_twins_tie() -> None:
    made = made_inputs(TINY, twins=3)
    assert np.array_equal(made.features[-3:], made.features[30:33])
    assert np.array_equal(made.pids[-3:], made.pids[30:33])
    assert made.features.dtype == made.mu.dtype == np.float32


class FakeClock(Cpu):
    """Every call takes times that are known."""

    def seconds(self, call: Any, runs: int) -> list[float]:
        call()
        return [1.0, 0.001, *[0.002] * (runs - 2)]


def test_floors_are_medians() -> None:
    found = list(floor.measured(FakeClock(), floor._Extent(16, 1000, 5)))
    rates = found[-1][1]
    assert rates.products == {"float32": pytest.approx(2 * 16**3 / 0.002)}
    assert rates.copy == pytest.approx(2 * 1000 / 0.002)
    assert [row.what for row, _ in found] == ["product, float32, no TF32", "copy"]


def test_kernel_times_stand_beside_the_floor(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_times, "for_kernels", lambda _: FakeClock())
    write_rates(context, Rates({"float32": 200.0**2 * 32 / 0.001}, 4 * 200.0**2 / 0.001))
    rows = {row.what: row for row in kernel_times.rows(context)}
    row = rows["tiny size: k_reciprocal with mu"]
    assert (row.figure, row.floor, row.ratio) == ("2.00 ms", "2.00 ms", "1.00")
    assert rows["tiny size: simple with mu"].floor == ""
    assert {"tiny size: stage neighbours", "tiny size: stage re-ranking"} <= rows.keys()


def test_sizes_of_the_field(context: Context) -> None:
    on_gpu = replace(context, device="cuda")
    assert [name for name, *_ in kernel_times.sizes(on_gpu)] == ["Market-1501"]
    both = {
        name: size.num_rows for name, size, _ in kernel_times.sizes(replace(on_gpu, quick=False))
    }
    assert both == {"Market-1501": 3368 + 15913, "MSMT17": 11659 + 82161}


def test_cupy_is_asked_for_its_pool_and_events() -> None:
    class Event:
        made = 0

        def __init__(self) -> None:
            Event.made += 1

        def record(self) -> None: ...

        def synchronize(self) -> None: ...

    class Pool:
        held, freed = 5, 0

        def free_all_blocks(self) -> None:
            self.freed += 1

        def total_bytes(self) -> int:
            return self.held

    pool = Pool()
    cupy = SimpleNamespace(
        cuda=SimpleNamespace(Event=Event, get_elapsed_time=lambda *_: 7.0),  # milliseconds
        get_default_memory_pool=lambda: pool,
    )
    gpu = CupyGpu(cupy)
    assert gpu.seconds(lambda: None, 2) == [0.007, 0.007]
    assert Event.made == 4
    assert gpu.peak_bytes(lambda: None) == 5
    assert pool.freed == 2


def test_what_scoring_says_of_its_figures(context: Context) -> None:
    assert runtimes.share_of_peak(0.02, None) == ""
    assert runtimes.share_of_peak(0.02, 0.005) == ", 25% of the fp16 product rate"
    write_times(context, {"released": 0.4})
    assert runtimes.against(0.02, {"released": 0.4}) == (
        "; PyTorch released takes 20.00 times as long"
    )

"""Rows on the (fake) GPU: what is written is what is gathered, and nothing passes the host."""

from threading import Lock
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from trt_fakes import FakeGpu

from murank import MachineError
from murank.backends.trt.arrays import DeviceArray, allocate_all, put
from murank.backends.trt.faults import Run
from murank.backends.trt.rows import PlanRows

SHAPE = (2, 3, 4)
ROW = 4 * 24  # bytes
FLOAT = np.dtype(np.float32)


def batch(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE), np.float32)


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture
def rows(gpu: FakeGpu) -> PlanRows:
    return PlanRows(gpu, Lock(), 6, SHAPE, FLOAT)


def gathered(rows: PlanRows, places: Any) -> NDArray[Any]:
    found = rows.gathered(np.array(places, np.int64))
    assert found.dtype == FLOAT
    return found.numpy()


def test_memory_is_taken_once_and_exactly(gpu: FakeGpu, rows: PlanRows) -> None:
    assert gpu.reserved == [6 * ROW]
    rows.write(0, batch(1), 0)
    assert gpu.reserved == [6 * ROW]


def test_what_is_written_is_gathered_in_any_order(gpu: FakeGpu, rows: PlanRows) -> None:
    values = batch(6)
    on_device = put(gpu, values)
    for place, number in enumerate((3, 0, 5, 2, 1, 4)):
        rows.write(place, on_device, number)
    assert (gpu.uploads, gpu.downloads) == (1, 0)
    places = [[5, 5, 0], [1, 2, 3]]
    np.testing.assert_array_equal(gathered(rows, places), values[[[4, 4, 3], [0, 5, 2]]])
    assert gpu.downloads == 1  # of this test


def test_several_at_once(gpu: FakeGpu, rows: PlanRows) -> None:
    values = batch(5)
    rows.write(2, put(gpu, values), 1, 3)
    assert gpu.copied == [3 * ROW]
    np.testing.assert_array_equal(gathered(rows, [[2, 3, 4]])[0], values[1:4])


def test_from_the_host(gpu: FakeGpu, rows: PlanRows) -> None:
    values = batch(4)[::-1]  # not contiguous
    rows.write(1, values, 2, 2)
    assert gpu.uploads == 1
    np.testing.assert_array_equal(gathered(rows, [[2], [1]])[:, 0], values[[3, 2]])


def test_neighbours_are_copied_together(gpu: FakeGpu, rows: PlanRows) -> None:
    rows.write(0, batch(6), 0, 6)
    gathered(rows, [[1, 2, 3], [0, 4, 5]])
    assert gpu.copied == [3 * ROW, ROW, 2 * ROW]
    gpu.copied.clear()
    gathered(rows, [[0, 1, 2], [3, 4, 5]])  # over the end of a query
    assert gpu.copied == [6 * ROW]
    gpu.copied.clear()
    assert gathered(rows, np.empty((2, 0))).shape == (2, 0, *SHAPE)
    assert gpu.copied == []


def test_a_gathered_value_is_a_copy(rows: PlanRows) -> None:
    first, second = batch(1), batch(1, seed=1)
    rows.write(0, first, 0)
    found = rows.gathered(np.array([[0]]))
    rows.write(0, second, 0)
    np.testing.assert_array_equal(found.numpy()[0], first)


@pytest.mark.parametrize(
    ("place", "number", "count"),
    [(-1, 0, 1), (6, 0, 1), (5, 0, 2), (0, -1, 1), (0, 3, 1), (0, 2, 2)],
)
def test_nothing_is_written_beside_it(
    gpu: FakeGpu, rows: PlanRows, place: int, number: int, count: int
) -> None:
    for values in (batch(3), put(gpu, batch(3))):
        with pytest.raises(IndexError, match="do not fit into place"):
            rows.write(place, values, number, count)
    assert gpu.copied == []


def test_rows_of_another_kind(gpu: FakeGpu, rows: PlanRows) -> None:
    for values in (batch(3).astype(np.float16), batch(3)[:, :1], put(gpu, batch(3)[..., :2])):
        with pytest.raises(ValueError, match=r"rows are \(2, 3, 4\) float32, got"):
            rows.write(0, values, 0)


@pytest.mark.parametrize("place", [-1, 6])
def test_places_that_are_none(rows: PlanRows, place: int) -> None:
    with pytest.raises(IndexError, match=r"places must be in 0\.\.5"):
        rows.gathered(np.array([[0, place]]))


def test_no_memory_for_it(gpu: FakeGpu) -> None:
    gpu.free = 6 * ROW - 1
    with pytest.raises(MachineError, match="out of memory"):
        PlanRows(gpu, Lock(), 6, SHAPE, FLOAT)


def test_a_fault_names_the_run_whose_rows_are_copied(
    gpu: FakeGpu, rows: PlanRows, tmp_path: Any
) -> None:
    run = Run(tmp_path / "vision.onnx", {"images": (3, 3, 8, 8)})
    (value,) = allocate_all(gpu, {"tokens": ((3, *SHAPE), FLOAT)}, run).values()
    assert isinstance(value, DeviceArray)
    gpu.broken = "launch failed"
    with pytest.raises(
        MachineError, match=r"vision\.onnx: the GPU failed .* images \[3, 3, 8, 8\]"
    ):
        rows.write(0, value, 2)
    with pytest.raises(MachineError, match="lost it"):
        rows.gathered(np.array([[0]]))

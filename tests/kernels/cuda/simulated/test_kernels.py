"""Single kernels against NumPy, and what a launch refuses."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from murank_kernels.codes.encoding import Codes
from murank_kernels.codes.encoding import add_rows as add_rows_on_cpu
from murank_kernels.codes.reciprocal_sets import expanded_sets as expanded_sets_on_cpu
from murank_kernels.codes.reciprocal_sets import united_sets as united_sets_on_cpu
from murank_kernels.cuda import codes as device_codes
from murank_kernels.cuda import neighbors as device_neighbors
from murank_kernels.cuda import probe
from murank_kernels.cuda.kernel import words
from murank_kernels.cuda.simulated import SimulatedArrays
from murank_kernels.cuda.tile_kernels import (
    EVERYBODY,
    OTHER_CAMERA,
    SAME_CAMERA,
    put_changes,
    turn,
)
from murank_kernels.tiles.lists import NOBODY

GPU = SimulatedArrays()
RANDOM = np.random.default_rng(0)


def near(num_rows: int, length: int) -> Any:
    """Random rank lists, with the row itself somewhere."""
    lists = np.argsort(RANDOM.random((num_rows, num_rows)), axis=1)[:, :length]
    return lists.astype(np.int32)


def test_the_first_kernel_tells_what_it_is_given() -> None:
    arguments = probe.given(np)
    GPU.launch(probe.tell, 1, 1, *arguments)
    assert_array_equal(arguments[5], probe.TOLD)


@pytest.mark.parametrize("rule", [EVERYBODY, SAME_CAMERA, OTHER_CAMERA])
def test_scan_in_pieces(rule: int) -> None:
    """Columns in two pieces of odd widths; values with ties; rows 3, 4 of 6."""
    values = RANDOM.integers(0, 5, (2, 19)).astype(np.float32)
    cameras = (np.arange(19) % 3).astype(np.int32)
    lists, row_max = device_neighbors.empty_lists(GPU, 6, 5), np.zeros(6, np.float32)
    for part in (slice(7, 19), slice(0, 7)):
        tile = np.ascontiguousarray(values[:, part])
        device_neighbors.offer(GPU, tile, (3, part.start), lists, (cameras, rule), row_max)
    for r, i in enumerate((3, 4)):
        same = cameras == cameras[i]
        allowed = {EVERYBODY: same | True, SAME_CAMERA: same, OTHER_CAMERA: ~same}[rule]
        order = np.argsort(values[r], kind="stable")
        expected = order[allowed[order]][:5]
        assert_array_equal(lists[1][i][: len(expected)], expected)
        assert_array_equal(lists[0][i][: len(expected)], values[r, expected])
        assert (lists[1][i][len(expected) :] == NOBODY).all()
        assert row_max[i] == values[r].max()
    assert (lists[1][[0, 1, 2, 5]] == NOBODY).all()
    assert not row_max[[0, 1, 2, 5]].any()


@pytest.mark.parametrize(("height", "width", "first"), [(5, 9, 5), (4, 7, 0), (1, 2, 1)])
def test_turn(height: int, width: int, first: int) -> None:
    tile = RANDOM.random((height, width), np.float32)
    out = np.zeros((width - first, height), np.float32)
    blocks = -(-height // 3) * -(-len(out) // 3)
    GPU.launch(turn, blocks, 4, tile, first, 3, out, shared_bytes=words(12))
    assert_array_equal(out, tile[:, first:].T)


def test_put_changes_only_inside_the_tile() -> None:
    indptr, columns = np.array([0, 1, 4, 4]), np.array([9, 1, 3, 5], np.int32)
    values = np.arange(4, dtype=np.float32)
    tile = np.full((2, 3), 8, np.float32)
    GPU.launch(put_changes, 2, 4, tile, np.array([1, 2]), 2, indptr, columns, values)
    assert_array_equal(tile, [[8, 2, 8], [8, 8, 8]])


@pytest.mark.parametrize("k1", [1, 4, 9])
def test_expanded_sets(k1: int) -> None:
    lists = near(24, 12)
    for actual, desired in zip(
        device_codes.expanded_sets(GPU, lists, k1), expanded_sets_on_cpu(lists, k1), strict=True
    ):
        assert_array_equal(actual, desired)


def test_united_sets() -> None:
    lists, others = near(20, 8), near(20, 8)
    desired = united_sets_on_cpu(lists, 6, others, 8)
    for actual, expected in zip(
        device_codes.united_sets(GPU, lists, 6, others, 8), desired, strict=True
    ):
        assert_array_equal(actual, expected)


def test_sum_rows_counts_a_row_named_twice_twice() -> None:
    dense = RANDOM.random((9, 9)) * (RANDOM.random((9, 9)) < 0.5)
    dense[3] = 0
    rows, columns = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(10))
    codes = Codes(indptr, columns.astype(np.int32), dense[rows, columns].astype(np.float32))
    added = np.array([[0, 0, 2], [3, 3, 3], [6, 1, 6], [5, 4, 3]] * 3, np.int32)[:9]
    actual = device_codes.sum_rows(GPU, codes, added, divisor=3)
    desired = add_rows_on_cpu(codes, added, divisor=3)
    for name in ("indptr", "indices", "data"):  # even the order of columns and of sums
        assert_array_equal(getattr(actual, name), getattr(desired, name))
    sums = np.zeros((9, 9))
    for i in range(9):
        part = slice(actual.indptr[i], actual.indptr[i + 1])
        sums[i, actual.indices[part]] = actual.data[part]
    assert_allclose(sums, dense[added].sum(axis=1) / 3, atol=1e-6)


def test_an_index_of_nothing() -> None:
    codes = Codes(np.array([0, 2, 2, 2]), np.array([0, 2], np.int32), np.ones(2, np.float32))
    columns = device_codes.gallery_columns(GPU, codes, 1)
    assert_array_equal(columns.indptr, np.zeros(4))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, np.zeros((2, 3))),
        (0, np.zeros((3, 2), np.float32).T),
        (0, np.zeros((0, 3), np.float32)),
        (0, np.zeros(3, np.float32)),
        (1, np.int64(1)),
        (1, 1.0),
    ],
)
def test_a_launch_refuses_other_types(place: int, value: Any) -> None:
    arguments: list[Any] = [np.zeros((2, 3), np.float32), 0, 3, np.zeros((3, 2), np.float32)]
    arguments[place] = value
    with pytest.raises(TypeError, match=f"argument {place} of turn is not"):
        GPU.launch(turn, 1, 4, *arguments, shared_bytes=words(12))
    with pytest.raises(TypeError, match="turn takes 4 arguments"):
        GPU.launch(turn, 1, 4)


def test_a_launch_refuses_too_much_shared_memory() -> None:
    arguments = (np.zeros((2, 3), np.float32), 0, 3, np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match="shared memory"):
        GPU.launch(turn, 1, 4, *arguments, shared_bytes=50_000)

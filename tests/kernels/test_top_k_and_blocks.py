from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from golden_data import main_case
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from murank_kernels import (
    DistanceBlocks,
    ca_jaccard,
    ca_jaccard_blocks,
    ecn,
    ecn_blocks,
    k_reciprocal,
    k_reciprocal_blocks,
    simple,
    simple_blocks,
    smallest_k,
)

Call = Callable[..., Any]
CASE = main_case()
INPUT = (CASE.features, CASE.num_query)
METHODS: dict[str, tuple[Call, Call]] = {
    "k_reciprocal": (k_reciprocal, k_reciprocal_blocks),
    "k_reciprocal squared": (
        partial(k_reciprocal, squared=True),
        partial(k_reciprocal_blocks, squared=True),
    ),
    "ecn": (ecn, ecn_blocks),
    "ecn origdist": (partial(ecn, method="origdist"), partial(ecn_blocks, method="origdist")),
    "ca_jaccard": (
        partial(ca_jaccard, camids=CASE.camids),
        partial(ca_jaccard_blocks, camids=CASE.camids),
    ),
    "simple": (simple, simple_blocks),
}


def first_by_argsort(rows: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    order = np.argsort(rows, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), order


def check_top_k(
    found: tuple[NDArray[Any], NDArray[Any]], rows: NDArray[np.float32], k: int
) -> None:
    distances, indices = found
    assert distances.dtype == np.float32
    assert indices.dtype == np.int32
    desired, order = first_by_argsort(rows, k)
    assert_array_equal(indices, order)
    assert_array_equal(distances, desired)


def check_close(found: NDArray[np.float32], desired: NDArray[np.float32]) -> None:
    """Distances from products of another shape: some BLAS kernels round those differently."""
    assert_allclose(found, desired, rtol=1e-6, atol=5e-7)


@pytest.mark.parametrize("k", [1, 7, 390])
@pytest.mark.parametrize("fusion", [{}, CASE.fusion], ids=["plain", "mu"])
@pytest.mark.parametrize("name", METHODS)
def test_top_k_is_the_head_of_the_full_ranking(name: str, fusion: dict[str, Any], k: int) -> None:
    dense, blocks = METHODS[name]
    made: DistanceBlocks = blocks(*INPUT, **fusion)
    rows = np.concatenate([part for _, part in made])
    check_top_k(made.top_k(k), rows, k)
    check_top_k(dense(*INPUT, top_k=k, **fusion), rows, k)
    check_close(rows, dense(*INPUT, **fusion))


@pytest.mark.parametrize("name", METHODS)
def test_blocks_are_the_rows_of_the_matrix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("murank_kernels.tiles.distance_blocks.BLOCK_BYTES", 1)
    dense, blocks = METHODS[name]
    rows = dense(*INPUT, **CASE.fusion)
    made: DistanceBlocks = blocks(*INPUT, **CASE.fusion)
    assert (made.num_query, made.num_gallery) == rows.shape
    for _ in range(2):
        next_row = 0
        for first, part in made:
            assert first == next_row
            assert part.dtype == np.float32
            check_close(part, rows[first : first + len(part)])
            next_row += len(part)
            part[:] = -1  # the caller's own
        assert next_row == made.num_query
    again = made.dense()
    check_close(again, rows)
    assert_array_equal(made.dense(), again)


@pytest.mark.parametrize("name", METHODS)
def test_progress(name: str) -> None:
    seen: list[tuple[str, int, int]] = []
    METHODS[name][0](*INPUT, progress=lambda *step: seen.append(step))
    assert seen
    assert all(isinstance(stage, str) and 0 <= done <= total for stage, done, total in seen)
    last = {stage: (done, total) for stage, done, total in seen}
    assert all(done == total for done, total in last.values())


def test_an_error_in_progress_ends_the_work() -> None:
    def fail(*_: object) -> None:
        raise LookupError("stop")

    with pytest.raises(LookupError, match="stop"):
        k_reciprocal(*INPUT, progress=fail)


@pytest.mark.parametrize("num_columns", [1, 31, 32, 33, 700])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_smallest_k(num_columns: int, share: float) -> None:
    k = max(1, int(share * num_columns))
    rng = np.random.default_rng(num_columns)
    rows = rng.integers(-5, 20, (67, num_columns)).astype(np.float32)
    before = rows.copy()
    check_top_k(smallest_k(rows, k), rows, k)
    assert_array_equal(rows, before)


@pytest.mark.parametrize("order", ["ascending", "descending", "equal"])
def test_smallest_k_of_sorted_rows(order: str) -> None:
    rows = np.tile(np.arange(100, dtype=np.float32), (2, 1))
    rows = {"ascending": rows, "descending": rows[:, ::-1], "equal": rows * 0}[order]
    check_top_k(smallest_k(rows, 40), rows, 40)

"""Blocks, top-k, mu between gallery images, and arrays that are on the device."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from murank_kernels import (
    DeviceUnavailableError,
    DistanceBlocks,
    InvalidInputError,
    ca_jaccard,
    k_reciprocal,
    k_reciprocal_blocks,
    simple,
    simple_blocks,
)
from murank_kernels.cuda import codes as device_codes
from murank_kernels.cuda import neighbors as device_neighbors
from murank_kernels.cuda import plan
from murank_kernels.cuda.simulated import SimulatedArray

Q, G = 6, 30
SETTINGS: dict[str, Any] = {"k1": 5, "k2": 3}


def on_device(array: Any) -> Any:
    return np.array(array).view(SimulatedArray)


def features(dtype: Any = np.float32) -> NDArray[Any]:
    rows = np.random.default_rng(3).standard_normal((Q + G, 8)).astype(dtype)
    rows[Q + 4] = rows[Q + 9] = rows[2]
    return rows


def scores() -> dict[str, Any]:
    random = np.random.default_rng(4)
    neighbours = (np.arange(G)[:, None] + [1, 2, G - 1]) % G  # pairs named from both sides
    return {
        "mu": random.random((Q, 4)),
        "candidates": np.argsort(random.random((Q, G)), axis=1)[:, :4],
        "gallery_mu": random.random((G, 3)),
        "gallery_candidates": neighbours,
    }


def close(actual: Any, desired: Any) -> None:
    assert_allclose(np.asarray(actual), np.asarray(desired), rtol=0, atol=1e-6)


@pytest.mark.parametrize("given", ["mu", "gallery_mu", "both"])
def test_fused_as_on_a_cpu(given: str, small_tiles: Callable[[int], None]) -> None:
    small_tiles(11)
    names = {"mu": ("mu", "candidates"), "gallery_mu": ("gallery_mu", "gallery_candidates")}
    fusion = {key: value for key, value in scores().items() if key in names.get(given, scores())}
    desired = k_reciprocal(features(), Q, **SETTINGS, **fusion)
    close(k_reciprocal(features(), Q, device="cuda", **SETTINGS, **fusion), desired)
    plain = k_reciprocal(features(), Q, **SETTINGS)
    assert np.abs(np.asarray(desired) - np.asarray(plain)).max() > 1e-3


@pytest.mark.parametrize("longest", [1024, 7])
def test_top_k(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = k_reciprocal_blocks(features(), Q, device="cuda", **SETTINGS)
    dense = blocks.dense()
    monkeypatch.setattr(plan, "LONGEST", longest)  # of both ways to sort, the other one
    distances, indices = blocks.top_k(9)
    order = np.argsort(dense, axis=1, kind="stable")[:, :9]
    assert_array_equal(indices, order)
    assert_array_equal(distances, np.take_along_axis(dense, order, axis=1))
    assert distances.dtype == np.float32
    assert indices.dtype == np.int32


def test_top_k_is_checked() -> None:
    blocks = simple_blocks(features(), Q, device="cuda")
    for k in (0, G + 1):
        with pytest.raises(InvalidInputError, match="top_k"):
            blocks.top_k(k)


@pytest.mark.parametrize("kept", [True, False])
def test_blocks_of_few_rows(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    dense = k_reciprocal(features(), Q, device="cuda", **SETTINGS)
    monkeypatch.setattr(plan, "block_rows", lambda *_: 4)
    monkeypatch.setattr(plan, "keeps_measured", lambda *_: kept)
    blocks = k_reciprocal_blocks(
        features(), Q, device="cuda", progress=lambda *step: told.append(step), **SETTINGS
    )
    assert isinstance(blocks, DistanceBlocks)
    for _ in range(2):  # blocks can be asked for again, and the search is not repeated
        parts = list(blocks)
        assert [start for start, _ in parts] == [0, 4]
        close(np.concatenate([rows for _, rows in parts]), dense)
        assert all(type(rows) is np.ndarray for _, rows in parts)
    assert told.count(("neighbours", Q + G, Q + G)) == 1
    assert told[-1] == ("re-ranking", Q, Q)


def test_measured_distances_become_final_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are finished where the search left them; who looks again finds the same."""
    monkeypatch.setattr(plan, "block_rows", lambda *_: 4)
    desired = k_reciprocal(features(), Q, device="cuda", **SETTINGS)
    blocks = k_reciprocal_blocks(features(), Q, device="cuda", **SETTINGS)
    (first,) = (rows for start, rows in islice(blocks, 1))  # left before the second block
    assert_array_equal(first, desired[:4])
    first[:] = 9  # a block is the caller's
    assert_array_equal(np.concatenate([rows for _, rows in blocks]), desired)
    assert_array_equal(blocks.dense(), desired)
    assert_array_equal(np.concatenate([rows for _, rows in blocks.where_made()]), desired)
    first, again = (next(rows for _, rows in blocks.where_made()) for _ in range(2))
    assert np.shares_memory(first, again)  # no copies
    given = k_reciprocal_blocks(on_device(features()), Q, device="cuda", **SETTINGS)
    for _ in range(2):
        for start, rows in given:
            assert_array_equal(np.asarray(rows), desired[start : start + len(rows)])
            rows[:] = 9
    dense = given.dense()
    dense[:] = 9
    assert_array_equal(given.dense(), desired)


def test_threads_that_iterate_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "block_rows", lambda *_: 1)
    blocks = k_reciprocal_blocks(features(), Q, device="cuda", **SETTINGS)
    desired = k_reciprocal(features(), Q, device="cuda", **SETTINGS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: np.concatenate([rows for _, rows in blocks]), range(4)):
            assert_array_equal(found, desired)


def test_a_block_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    desired = k_reciprocal(features(), Q, device="cuda", **SETTINGS)
    blocks = k_reciprocal_blocks(features(), Q, device="cuda", **SETTINGS)
    plain, failures = device_codes.add_shared, [MemoryError("no room")]

    def fails(*given: Any, **settings: Any) -> None:
        if failures:
            raise failures.pop()
        plain(*given, **settings)

    monkeypatch.setattr(device_codes, "add_shared", fails)
    with pytest.raises(DeviceUnavailableError, match="no room"):
        blocks.dense()
    assert_array_equal(blocks.dense(), desired)


def test_blocks_in_host_memory_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("murank_kernels.tiles.distance_blocks.BLOCK_BYTES", 4 * G * 2)
    blocks = simple_blocks(features(), Q, device="cuda")
    assert [(start, len(rows)) for start, rows in blocks] == [(0, 2), (2, 2), (4, 2)]
    assert [start for start, _ in blocks.where_made()] == [0]


def test_an_array_on_the_device_stays_there() -> None:
    given = on_device(features())
    fusion = {key: on_device(value) for key, value in scores().items()}
    actual = k_reciprocal(given, Q, device="cuda", **SETTINGS, **fusion)
    assert isinstance(actual, SimulatedArray)
    close(actual, k_reciprocal(features(), Q, **SETTINGS, **scores()))
    assert_array_equal(np.asarray(given), features())  # the caller's array is as it was
    assert all(
        isinstance(part, SimulatedArray) for part in simple(given, Q, top_k=2, device="cuda")
    )
    camids = np.arange(Q + G) % 3
    close(
        ca_jaccard(given, Q, on_device(camids), k1=4, k2=2, ckrnns=False, device="cuda"),
        ca_jaccard(features(), Q, camids, k1=4, k2=2, ckrnns=False),
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types(dtype: Any) -> None:
    desired = simple(features(dtype), Q)
    close(simple(on_device(features(dtype)), Q, device="cuda"), desired)
    close(simple(features(dtype), Q, device="cuda"), desired)


def bad(value: float) -> NDArray[np.float32]:
    rows = features()
    rows[7] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (bad(np.nan), "row 7 holds NaN"),
        (bad(np.inf), "row 7 holds an infinite"),
        (bad(0), "row 7 is all zero"),
        (features().astype(int), "floating point"),
        (features()[0], r"shape \[N, D\]"),
    ],
)
def test_bad_features_on_the_device(rows: Any, message: str) -> None:
    for given in (rows, on_device(rows)):
        with pytest.raises(InvalidInputError, match=message):
            simple(given, Q, device="cuda")


def test_features_too_large_to_measure() -> None:
    with pytest.raises(InvalidInputError, match="normalise them"):
        simple(on_device(features() * 1e18), Q, normalize=False, device="cuda")


def test_longer_lists_than_fit() -> None:
    with pytest.raises(InvalidInputError, match="k2"):
        k_reciprocal(np.ones((2000, 2), np.float32), 3, k2=1020, device="cuda")
    with pytest.raises(InvalidInputError, match="k1"):
        k_reciprocal(np.ones((300, 2), np.float32), 3, k1=109, device="cuda")
    plan.check_expansion(108, 300)
    plan.check_expansion(1000, 20)  # more than there are is as many as there are


def test_smallest_keeps_the_lower_index() -> None:
    from murank_kernels.cuda.simulated import SimulatedArrays

    rows = np.random.default_rng(5).integers(0, 4, (3, 40)).astype(np.float32)
    values, indices = device_neighbors.smallest(SimulatedArrays(), rows, 17)
    order = np.argsort(rows, axis=1, kind="stable")[:, :17]
    assert_array_equal(indices, order)
    assert_array_equal(values, np.take_along_axis(rows, order, axis=1))

"""products="tf32": who is in a list may change, distances do not."""

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from murank_kernels import InvalidInputError, ca_jaccard, ecn, k_reciprocal, simple
from murank_kernels.cuda import neighbors as device_neighbors
from murank_kernels.cuda import plan
from murank_kernels.cuda.prepare import DevicePrepared, prepare
from murank_kernels.cuda.simulated import as_tf32
from murank_kernels.tiles.prepare import MethodInput

Q, G = 5, 35
TF32: dict[str, Any] = {"device": "cuda", "products": "tf32"}


def features() -> NDArray[np.float32]:
    """Eight people, five images each, close enough that rounding decides between some."""
    random = np.random.default_rng(1449)  # no two distances within 8e-6
    people = random.standard_normal((8, 16))
    rows = people[np.arange(Q + G) % 8] + 0.02 * random.standard_normal((Q + G, 16))
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4")
    return unit


def prepared(products: str) -> DevicePrepared:
    return prepare(MethodInput(features(), Q, products=products))


def exact() -> NDArray[np.float64]:
    rows = features().astype(np.float64)
    distances: NDArray[np.float64] = np.square(rows[:, None] - rows[None]).sum(axis=2)
    return distances


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1, 1),
        (1 + 2**-10, 1 + 2**-10),
        (1 + 2**-11, 1),  # a tie goes to the even mantissa
        (1 + 3 * 2**-11, 1 + 2**-9),
        (-1 - 2**-11 - 2**-20, -1 - 2**-10),
        (2 - 2**-12, 2),
        (0, 0),
    ],
)
def test_rounding(value: float, rounded: float) -> None:
    assert as_tf32(np.array([value], np.float32)) == np.float32(rounded)


def test_distances_in_lists_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "TF32_SLACK", 0)  # so that wrong items do get in
    found = device_neighbors.neighbors(prepared("tf32"), 12)
    desired = exact()
    near = np.take_along_axis(desired, found.indices.astype(np.int64), axis=1)
    assert_allclose(found.distances, near, atol=1e-6)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    order = np.argsort(desired, axis=1, kind="stable")[:, :12]
    wrong = (np.sort(found.indices) != np.sort(order)).any(axis=1).mean()
    assert 0 < wrong < 1
    off = np.abs(found.row_max - desired.max(axis=1))
    assert 1e-5 < off.max() < 4e-3
    plain = device_neighbors.neighbors(prepared("float32"), 12)
    assert_array_equal(plain.indices, order)
    assert_allclose(plain.row_max, desired.max(axis=1), rtol=1e-6)


def test_slack_finds_what_rounding_hides() -> None:
    found = device_neighbors.neighbors(prepared("tf32"), 12)
    assert_array_equal(found.indices, np.argsort(exact(), axis=1, kind="stable")[:, :12])


def test_what_does_not_hang_on_the_largest_distance_is_the_same() -> None:
    """With the right lists, ECN has no way to differ."""
    for method in ("rankdist", "origdist"):
        settings: dict[str, Any] = {"k": 5, "t": 2, "q": 3, "method": method}
        plain = ecn(features(), Q, device="cuda", **settings)
        assert_allclose(ecn(features(), Q, **TF32, **settings), plain, atol=1e-6)


def test_what_does_is_close() -> None:
    cameras = np.arange(Q + G) % 3
    small: dict[str, Any] = {"k1": 4, "k2": 2}
    plain = k_reciprocal(features(), Q, device="cuda", **small)
    rounded = k_reciprocal(features(), Q, **small, **TF32)
    assert 0 < np.abs(np.asarray(rounded) - np.asarray(plain)).max() < 2e-3
    small |= {"k1_intra": 2, "k1_inter": 4}
    assert_allclose(
        ca_jaccard(features(), Q, cameras, **small, **TF32),
        ca_jaccard(features(), Q, cameras, device="cuda", **small),
        atol=2e-3,
    )


def test_simple_rounds_only_what_it_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_array_equal(simple(features(), Q, **TF32), simple(features(), Q, device="cuda"))
    monkeypatch.setattr(plan, "block_rows", lambda *_: 3)
    distances, indices = simple(features(), Q, top_k=7, **TF32)
    plain_distances, plain_indices = simple(features(), Q, top_k=7, device="cuda")
    assert_array_equal(indices, plain_indices)
    assert_allclose(distances, plain_distances, atol=2e-6)
    assert distances.shape == (Q, 7)
    assert indices.dtype == np.int32
    monkeypatch.setattr(plan, "TF32_SLACK", 0)
    distances, indices = simple(features(), Q, top_k=3, **TF32)  # items may be missed
    chosen = np.take_along_axis(exact()[:Q, Q:], indices.astype(np.int64), axis=1)
    assert_allclose(distances, np.sqrt(chosen), atol=2e-6)


def test_simple_with_mu_and_all_of_the_gallery() -> None:
    mu = np.random.default_rng(2).random((Q, 4))
    candidates = np.tile(np.arange(0, 32, 8), (Q, 1))
    settings: dict[str, Any] = {"mu": mu, "candidates": candidates, "top_k": G}
    distances, indices = simple(features(), Q, **TF32, **settings)
    plain_distances, plain_indices = simple(features(), Q, **settings)
    assert_array_equal(indices, plain_indices)
    assert_allclose(distances, plain_distances, atol=2e-6)


def test_more_than_a_list_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "LONGEST", 20)
    distances, _ = simple(features(), Q, top_k=7, **TF32)  # made exactly, and sorted
    assert_array_equal(distances, simple(features(), Q, top_k=7, device="cuda")[0])
    with pytest.raises(InvalidInputError, match="k2"):
        k_reciprocal(features(), Q, k1=3, k2=4, **TF32)

"""Every mistake with a gallery in memory is an InvalidInputError that names the argument."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank_kernels import InvalidInputError, OnlineKReciprocal

G, D = 7, 5
NAN, INF = float("nan"), float("inf")
NOT_COUNTS = [0, -1, 1.5, 2.0, True, "2", None]
NOT_FRACTIONS = [-0.01, 1.01, NAN, INF, "0.5", None, 1j]
GALLERY = np.random.default_rng(0).standard_normal((G, D)).astype(np.float32)
ONLINE = OnlineKReciprocal(GALLERY, k1=3, k2=2)
QUERY = ONLINE.query(GALLERY[0])


def gallery(row: Any = None, dtype: Any = np.float32) -> NDArray[Any]:
    rows = 4 * GALLERY.astype(np.float64)
    if row is not None:
        rows[4] = row
    return rows.astype(dtype)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (GALLERY[0], r"gallery must have shape \[G, D\], got \(5,\)"),
        (GALLERY[None], r"gallery must have shape \[G, D\]"),
        (GALLERY[:0], r"gallery must have shape \[G, D\], got \(0, 5\)"),
        (GALLERY[:, :0], r"gallery must have shape \[G, D\]"),
        (None, r"gallery must have shape \[G, D\]"),
        ([[1.0, 2.0], [3.0]], "gallery cannot be read as an array"),
        (gallery(NAN), "features row 4 holds NaN"),
        (gallery([1, INF, 0, 0, 0]), "features row 4 holds an infinite"),
        (gallery(0), "features row 4 is all zero"),
        (gallery(dtype=np.int64), "features must be floating point"),
        (gallery(dtype=np.complex64), "features must be floating point"),
        (gallery(dtype=str), "features must be floating point"),
    ],
)
def test_gallery(value: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        OnlineKReciprocal(value)


def test_a_gallery_too_large_for_float32() -> None:
    with pytest.raises(InvalidInputError, match="too large for float32 distances"):
        OnlineKReciprocal(1e19 * gallery(dtype=np.float64), normalize=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("k1", "k2") for value in NOT_COUNTS),
        *((name, value) for name in ("lambda_value", "alpha") for value in NOT_FRACTIONS),
    ],
)
def test_parameters(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=rf"\b{name}\b"):
        OnlineKReciprocal(GALLERY, **{name: value})


def test_gallery_mu() -> None:
    others = (np.arange(G)[:, None] + 1) % G
    mu = np.full((G, 1), 0.5)
    OnlineKReciprocal(GALLERY, gallery_mu=mu, gallery_candidates=others)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"gallery_mu": mu}, "gallery_candidates is missing"),
        ({"gallery_candidates": others}, "gallery_mu is missing"),
        ({"gallery_mu": mu[1:], "gallery_candidates": others}, r"gallery_mu must have shape \[7"),
        ({"gallery_mu": mu + 1, "gallery_candidates": others}, r"gallery_mu must be in \[0, 1\]"),
        ({"gallery_mu": mu, "gallery_candidates": others + 1}, "gallery_candidates must be gall"),
        ({"gallery_mu": mu, "gallery_candidates": (others - 1) % G}, "name that image itself"),
    ]
    for arguments, message in bad:
        with pytest.raises(InvalidInputError, match=message):
            OnlineKReciprocal(GALLERY, **arguments)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (GALLERY[:1], r"feature must have shape \[5\], as the gallery's rows, got \(1, 5\)"),
        (GALLERY[0, :4], r"feature must have shape \[5\]"),
        (GALLERY[0, 0], r"feature must have shape \[5\]"),
        (None, r"feature must have shape \[5\]"),
        ([[1.0], [2.0, 3.0]], "feature cannot be read as an array"),
        (np.ones(D, int), "feature must be floating point, got int64"),
        (np.ones(D, complex), "feature must be floating point"),
        (np.ones(D, bool), "feature must be floating point"),
        (np.array([1, NAN, 0, 0, 0]), "feature holds NaN or an infinite value"),
        (np.array([1, -INF, 0, 0, 0]), "feature holds NaN or an infinite value"),
        (np.zeros(D), "feature is all zero"),
    ],
)
def test_feature(value: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ONLINE.query(value)


def test_a_zero_feature_is_fine_unless_normalised() -> None:
    online = OnlineKReciprocal(gallery(0), normalize=False)
    assert online.query(np.zeros(D)).nearest(1)[1] == [4]


@pytest.mark.parametrize("value", [*NOT_COUNTS, G + 1])
@pytest.mark.parametrize("method", ["nearest", "reranked_top"])
def test_k(method: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\bk\b"):
        getattr(QUERY, method)(value)


@pytest.mark.parametrize(
    ("mu", "candidates", "message"),
    [
        ([[0.5]], [0], r"mu must have shape \[K\], got \(1, 1\)"),
        ([0.5], [[0]], r"candidates must have shape \[K\]"),
        (0.5, [0], r"mu must have shape \[K\]"),
        (None, [0], r"mu must have shape \[K\]"),
        ([0.5], None, r"candidates must have shape \[K\]"),
        ([0.5, 0.5], [0], "candidates must have the shape of mu"),
        ([], [0], "mu must have shape"),
        ([0.5], [], "candidates must have the shape of mu"),
        ([NAN], [0], r"mu must be in \[0, 1\]"),
        ([1.001], [0], r"mu must be in \[0, 1\]"),
        ([-0.001], [0], r"mu must be in \[0, 1\]"),
        ([1], [0], "mu must be floating point"),
        ([0.5], [0.0], "candidates must be integers"),
        ([0.5], [True], "candidates must be integers"),
        ([0.5], [-1], r"candidates must be gallery indices in 0\.\.6, found -1"),
        ([0.5], [G], r"candidates must be gallery indices in 0\.\.6, found 7"),
        ([0.5, 0.6], [3, 3], "candidates of query 0 name one item twice"),
    ],
)
def test_fused(mu: Any, candidates: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        QUERY.fused(mu, candidates)

"""CA-Jaccard for one query at a time: the joint call on the query and its shortlist."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank_kernels import InvalidInputError, OnlineCaJaccard, ca_jaccard

G, D, M = 400, 16, 120
RNG = np.random.default_rng(0)
GALLERY = RNG.standard_normal((G, D)).astype(np.float32)
CAMIDS = RNG.integers(3, size=G)
QUERIES = RNG.standard_normal((6, D)).astype(np.float32)
SMALL: dict[str, Any] = {"k1_intra": 3, "k1_inter": 8, "k2": 3}
EPS = float(np.finfo(np.float32).eps)


def distances(query: NDArray[Any], mu: Any = None, places: Any = None) -> NDArray[Any]:
    """Euclidean ones of unit rows [G], with mu fused in by its definition."""
    unit = GALLERY / np.linalg.norm(GALLERY, axis=1, keepdims=True)
    gaps: NDArray[Any] = np.linalg.norm(unit - query / np.linalg.norm(query), axis=1)
    if mu is not None:
        gaps[places] = 0.8 * gaps[places] + 0.2 * 2 * mu
    return gaps


def joint(query: NDArray[Any], camid: int, rows: NDArray[Any], **fusion: Any) -> NDArray[Any]:
    """The joint call on the query and these gallery rows."""
    both = np.concatenate([query[None], GALLERY[rows]])
    found = ca_jaccard(both, 1, np.concatenate([[camid], CAMIDS[rows]]), **SMALL, **fusion)
    assert not isinstance(found, tuple)
    row: NDArray[Any] = found[0]
    return row


@pytest.mark.parametrize("camid", [0, 2, None])
@pytest.mark.parametrize("length", [M, None])
def test_it_is_the_joint_call(camid: int | None, length: int | None) -> None:
    online = OnlineCaJaccard(GALLERY, CAMIDS, shortlist=length, **SMALL)
    for query in QUERIES:
        rows = np.sort(np.argsort(distances(query), kind="stable")[: length or G])
        expected = joint(query, 99 if camid is None else camid, rows)
        actual = online.query(query, camid).reranked()
        np.testing.assert_allclose(actual[rows], expected, rtol=0, atol=16 * EPS)


def test_with_mu() -> None:
    """Also of a candidate that mu drives out of the shortlist."""
    online = OnlineCaJaccard(GALLERY, CAMIDS, shortlist=30, **SMALL)
    query = QUERIES[0]
    order = np.argsort(distances(query), kind="stable")
    places, mu = order[[3, 0, 29, 7]], np.array([0.1, 0.4, 1.0, 0.6])
    fused = distances(query, mu, places)
    rows = np.sort(np.argsort(fused, kind="stable")[:30])
    assert places[2] not in rows
    inside = np.array([0, 1, 3])
    candidates = np.searchsorted(rows, places[inside])[None]
    expected = joint(query, 1, rows, mu=mu[inside][None], candidates=candidates)
    asked = online.query(query, 1)
    at_once = asked.fused(mu, places)
    np.testing.assert_allclose(at_once.distances(), fused, rtol=0, atol=4 * EPS)
    np.testing.assert_allclose(at_once.reranked()[rows], expected, rtol=0, atol=16 * EPS)
    twice = asked.fused([0.9, 0.4], places[:2]).fused(mu[[0, 2, 3]], places[[0, 2, 3]])
    np.testing.assert_array_equal(twice.reranked(), at_once.reranked())
    assert asked.fused([], []) is asked


def test_the_others_come_behind_in_the_order_of_distances() -> None:
    online = OnlineCaJaccard(GALLERY, CAMIDS, shortlist=M, **SMALL)
    asked = online.query(QUERIES[1])
    order = np.argsort(asked.distances(), kind="stable")
    final = asked.reranked()
    assert final[order[:M]].max() <= final[order[M:]].min()
    np.testing.assert_array_equal(order[M:], order[M:][np.argsort(final[order[M:]], kind="stable")])
    values, indices = asked.reranked_top(G)
    np.testing.assert_array_equal(values, np.sort(final, kind="stable"))
    np.testing.assert_array_equal(indices[M:], order[M:])
    np.testing.assert_array_equal(asked.nearest(5)[1], order[:5])


def test_queries_in_several_threads() -> None:
    online = OnlineCaJaccard(GALLERY, CAMIDS, shortlist=M)
    expected = [online.query(query, 1).reranked() for query in QUERIES]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda query: online.query(query, 1).reranked(), [*QUERIES] * 5))
    for place, row in enumerate(found):
        np.testing.assert_array_equal(row, expected[place % len(QUERIES)])


def test_a_gallery_of_one() -> None:
    online = OnlineCaJaccard(GALLERY[:1], CAMIDS[:1])
    assert online.query(QUERIES[0]).reranked_top(1)[1].tolist() == [0]
    assert (online.num_gallery, online.dim) == (1, D)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("k1", "k2", "k1_intra", "k1_inter", "k2_intra", "k2_inter")
          for value in (0, -1, 1.5, True, None)),
        *((name, value) for name in ("alpha", "lambda_value") for value in (-0.1, 1.1, "1", None)),
        ("shortlist", 0), ("shortlist", 2.5), ("shortlist", "all"),
        ("gallery", GALLERY[0]), ("gallery", GALLERY[:0]), ("gallery", "x"),
        ("camids", CAMIDS[1:]), ("camids", CAMIDS * 0.5), ("camids", None),
    ],
)  # fmt: skip
def test_what_cannot_be_used(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        OnlineCaJaccard(**{"gallery": GALLERY, "camids": CAMIDS, name: value})


def test_queries_that_cannot_be_used() -> None:
    online = OnlineCaJaccard(GALLERY, CAMIDS, shortlist=M)
    with pytest.raises(InvalidInputError, match="feature"):
        online.query(QUERIES[0][:-1])
    with pytest.raises(InvalidInputError, match="camid"):
        online.query(QUERIES[0], 1.0)  # type: ignore[arg-type]
    asked = online.query(QUERIES[0])
    with pytest.raises(InvalidInputError, match="k is"):
        asked.reranked_top(G + 1)
    with pytest.raises(InvalidInputError, match="mu"):
        asked.fused([1.5], [0])
    with pytest.raises(InvalidInputError, match="candidates"):
        asked.fused([0.5], [G])

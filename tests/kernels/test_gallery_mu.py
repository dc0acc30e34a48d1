"""Mu between gallery images: every method against the dense oracle, and what must not matter."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from dense_reference import ref_distances
from gallery_reference import ca_jaccard_of, ecn_of, k_reciprocal_of, ref_fused
from golden_data import Case, check_close, main_case
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from murank_kernels import (
    ca_jaccard,
    ca_jaccard_blocks,
    ecn,
    ecn_blocks,
    k_reciprocal,
    k_reciprocal_blocks,
    re_ranking,
)
from murank_kernels.fusion.fusion import Fusion
from murank_kernels.tiles.neighbors import neighbors
from murank_kernels.tiles.prepare import MethodInput, Prepared, prepare

Scores = dict[str, Any]  # gallery_mu and gallery_candidates
CAMERAS = [
    {"ckrnns": ckrnns, "clqe": clqe} for ckrnns in (True, False) for clqe in (False, True)
]  # fmt: skip


def choose_others(distances: NDArray[Any], style: str, count: int) -> NDArray[np.int64]:
    """Candidates [G,count] inside a gallery with these distances [G,G]."""
    without_itself = distances.copy()
    np.fill_diagonal(without_itself, np.inf)
    order = np.argsort(without_itself, axis=1, kind="stable")[:, :-1]
    if style == "far":  # the row's maximum changes
        order = order[:, ::-1]
    if style == "hub":  # nearly all name the same ones
        rows = [[j for j in range(len(order)) if j != i] for i in range(len(order))]
        order = np.array(rows)
    return np.ascontiguousarray(order[:, :count])


def gallery_scores(case: Case, *, count: int = 6, style: str = "near", seed: int = 0) -> Scores:
    gallery = case.features[case.num_query :]
    others = choose_others(ref_distances(gallery), style, count)
    mu = np.random.default_rng(seed).random(others.shape, np.float32) ** 2
    return {"gallery_mu": mu, "gallery_candidates": others}


def fused(case: Case, scores: Scores, alpha: float, *, with_mu: bool) -> NDArray[np.float64]:
    fusion = case.fusion if with_mu else {}
    found: NDArray[np.float64] = ref_fused(
        case.features, case.num_query, **fusion, **scores, alpha=alpha
    )
    return found


def prepared(case: Case, scores: Scores, alpha: float) -> Prepared:
    fusion = Fusion(alpha=alpha, **scores)
    return prepare(MethodInput(case.features, case.num_query, fusion, normalize=False))


@pytest.mark.parametrize("with_mu", [False, True])
@pytest.mark.parametrize("style", ["near", "far", "hub"])
def test_k_reciprocal(style: str, with_mu: bool) -> None:
    case = main_case()
    scores = gallery_scores(case, style=style)
    given: dict[str, Any] = {**(case.fusion if with_mu else {}), "alpha": 0.3}
    desired = fused(case, scores, 0.3, with_mu=with_mu)
    variants: list[dict[str, Any]] = [{}, {"squared": True, "k1": 20, "k2": 6}, {"k2": 1}]
    for variant in variants:
        call = partial(k_reciprocal, case.features, case.num_query, **given, **variant)
        actual = np.asarray(call(**scores))
        check_close(actual, k_reciprocal_of(desired, case.num_query, **variant))
        assert np.abs(actual - np.asarray(call())).max() > 0.01


@pytest.mark.parametrize("with_mu", [False, True])
@pytest.mark.parametrize("method", ["rankdist", "origdist"])
def test_ecn(method: Any, with_mu: bool) -> None:
    case = main_case()
    scores = gallery_scores(case)
    fusion = case.fusion if with_mu else {}
    desired = ecn_of(fused(case, scores, 0.2, with_mu=with_mu), case.num_query, method=method)
    actual = ecn(case.features, case.num_query, method=method, **fusion, **scores)
    check_close(actual, desired)
    without = np.asarray(ecn(case.features, case.num_query, method=method, **fusion))
    assert np.abs(without - desired).max() > 0.001


@pytest.mark.parametrize("with_mu", [False, True])
@pytest.mark.parametrize("variant", CAMERAS)
def test_ca_jaccard(variant: dict[str, Any], with_mu: bool) -> None:
    case = main_case()
    scores = gallery_scores(case)
    fusion = case.fusion if with_mu else {}
    matrix = fused(case, scores, 0.2, with_mu=with_mu)
    desired = ca_jaccard_of(matrix, case.num_query, case.camids, **variant)
    call = partial(ca_jaccard, case.features, case.num_query, case.camids, **variant)
    check_close(call(**fusion, **scores), desired)
    without = np.asarray(call(**fusion))
    assert np.abs(without - desired).max() > 0.01


def test_like_the_customary_call_on_fused_matrices() -> None:
    case, q = main_case(), main_case().num_query
    scores = gallery_scores(case, count=10)
    matrix = fused(case, scores, 0.2, with_mu=True)
    desired = re_ranking(matrix[:q, q:], matrix[:q, :q], matrix[q:, q:], k1=20, k2=6)
    actual = k_reciprocal(
        case.features, q, k1=20, k2=6, squared=True, **case.fusion, **scores
    )  # fmt: skip
    assert isinstance(actual, np.ndarray)
    assert_allclose(actual, desired, rtol=0, atol=4e-6)


@pytest.mark.parametrize("style", ["near", "far", "hub"])
def test_lists_and_maxima_are_those_of_the_fused_matrix(style: str) -> None:
    case = main_case()
    scores = gallery_scores(case, style=style, count=12)
    ready = prepared(case, scores, 0.5)
    found = neighbors(ready.features, 15, ready.changes, num_query=case.num_query)
    matrix = fused(case, scores, 0.5, with_mu=False)
    assert_array_equal(found.indices, np.argsort(matrix, axis=1, kind="stable")[:, :15])
    assert_allclose(np.sqrt(found.row_max), matrix.max(axis=1), rtol=1e-6)


def hand_case() -> Case:
    """A query and three gallery images in a plane: distances 5 (query-0), 3, 4 and 5."""
    return Case(np.array([[3, 4], [0, 0], [3, 0], [0, 4]], np.float32), 1)


def test_fused_by_hand() -> None:
    scores = {
        "gallery_mu": np.array([[0.25], [0.75], [1.0]]),
        "gallery_candidates": np.array([[1], [0], [1]]),
    }
    tile = np.sqrt(prepared(hand_case(), scores, 0.5).tiles().tile(slice(0, 4), 0, 4))
    assert_array_equal(
        tile,
        np.array(
            [
                [0, 5, 4, 3],
                [5, 0, 0.5 * 3 + 0.5 * 2 * 0.5, 4],  # 0-1, the mean of 0.25 and 0.75
                [4, 0.5 * 3 + 0.5 * 2 * 0.5, 0, 0.5 * 5 + 0.5 * 2 * 1.0],  # 1-2, from one side
                [3, 4, 0.5 * 5 + 0.5 * 2 * 1.0, 0],
            ],
            np.float32,
        ),
    )


def test_a_pair_named_from_both_sides_with_one_mu_is_that_of_one_side() -> None:
    case = main_case()
    num_gallery = len(case.features) - case.num_query
    ring = np.arange(num_gallery)
    after, before = (ring + 1) % num_gallery, (ring - 1) % num_gallery
    mu = np.random.default_rng(3).random(num_gallery, np.float32)
    one = k_reciprocal(
        case.features, case.num_query,
        gallery_mu=mu[:, None], gallery_candidates=after[:, None],
    )  # fmt: skip
    both = k_reciprocal(
        case.features, case.num_query, gallery_mu=np.stack([mu, mu[before]], axis=1),
        gallery_candidates=np.stack([after, before], axis=1),
    )  # fmt: skip
    assert_array_equal(one, both)


@pytest.mark.parametrize(("call", "cameras"), [(k_reciprocal, 0), (ecn, 0), (ca_jaccard, 1)])
def test_images_with_fewer_others(call: Callable[..., Any], cameras: int) -> None:
    """Where nobody is named, mu is not read: a pair named from both sides is that of one."""
    case = main_case()
    arguments = [case.features, case.num_query, *([case.camids] * cameras)]
    scores = gallery_scores(case, count=1)
    others, mu = scores["gallery_candidates"][:, 0], scores["gallery_mu"][:, 0]
    pairs = {
        (min(i, j), max(i, j)): m
        for i, (j, m) in enumerate(zip(others.tolist(), mu.tolist(), strict=True))
    }
    ragged = np.full((len(others), 12), -1)
    values = np.full(ragged.shape, np.nan)
    for (i, j), m in pairs.items():
        place = np.argmin(ragged[i])
        ragged[i, place], values[i, place] = j, m
    one_mu = {
        "gallery_candidates": others[:, None],
        "gallery_mu": np.array(
            [[pairs[min(i, j), max(i, j)]] for i, j in enumerate(others.tolist())]
        ),
    }
    given = call(*arguments, gallery_mu=values, gallery_candidates=ragged)
    assert_array_equal(given, call(*arguments, **one_mu))
    none = call(*arguments, gallery_mu=values, gallery_candidates=np.full_like(ragged, -1))
    assert_array_equal(none, call(*arguments))


def test_the_order_of_candidates_does_not_matter() -> None:
    case = main_case()
    scores = gallery_scores(case)
    turned = {name: values[:, ::-1] for name, values in scores.items()}
    for call in (k_reciprocal, ecn):
        assert_array_equal(
            call(case.features, case.num_query, **scores),
            call(case.features, case.num_query, **turned),
        )


def test_what_changes_nothing() -> None:
    case = main_case()
    scores = gallery_scores(case)
    plain = np.asarray(k_reciprocal(case.features, case.num_query, **case.fusion))
    weightless = k_reciprocal(case.features, case.num_query, alpha=0, **scores)
    assert_allclose(
        weightless, np.asarray(k_reciprocal(case.features, case.num_query)), atol=1e-6, rtol=0
    )
    gallery = case.features[case.num_query :].astype(np.float64)
    gaps = gallery[:, None] - gallery[scores["gallery_candidates"]]
    scores["gallery_mu"] = np.linalg.norm(gaps, axis=2) / 2
    neutral = k_reciprocal(case.features, case.num_query, **case.fusion, **scores)
    assert_allclose(neutral, plain, atol=1e-6, rtol=0)


BLOCKS: list[tuple[Callable[..., Any], Callable[..., Any], bool]] = [
    (k_reciprocal, k_reciprocal_blocks, False),
    (ecn, ecn_blocks, False),
    (partial(ecn, method="origdist"), partial(ecn_blocks, method="origdist"), False),
    (ca_jaccard, ca_jaccard_blocks, True),
]


@pytest.mark.parametrize(("call", "blocks", "cameras"), BLOCKS)
def test_top_k_and_blocks(
    call: Callable[..., Any], blocks: Callable[..., Any], cameras: bool
) -> None:
    case = main_case()
    arguments = [case.features, case.num_query, *([case.camids] if cameras else [])]
    scores = {**case.fusion, **gallery_scores(case)}
    dense = call(*arguments, **scores)
    for start, rows in blocks(*arguments, **scores):
        assert_allclose(rows, dense[start : start + len(rows)], atol=5e-7, rtol=1e-6)
    nearest, indices = call(*arguments, **scores, top_k=7)
    assert_allclose(nearest, np.take_along_axis(dense, indices, axis=1), atol=5e-7, rtol=1e-6)
    assert_allclose(nearest, np.sort(dense, axis=1)[:, :7], atol=5e-7, rtol=1e-6)


def separated(matrix: NDArray[np.float64]) -> bool:
    """Entries of a row are equal, or far enough apart for float32 to keep their order."""
    gaps = np.diff(np.sort(matrix, axis=1), axis=1)
    return not bool(((gaps > 1e-12) & (gaps < 1e-5)).any())


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    num_gallery=st.integers(2, 40),
    num_query=st.integers(1, 8),
    count=st.integers(1, 12),
    style=st.sampled_from(["near", "far", "hub"]),
    with_mu=st.booleans(),
    squared=st.booleans(),
)
def test_random_shapes(
    seed: int,
    num_gallery: int,
    num_query: int,
    count: int,
    style: str,
    with_mu: bool,
    squared: bool,
) -> None:
    # Multiples of 1/4: squared distances are exact in float32, and many of them are equal.
    rng = np.random.default_rng(seed)
    features = (rng.integers(-8, 9, (num_query + num_gallery, 8)) / 4).astype(np.float32)
    mu = rng.random((num_query, min(3, num_gallery)), np.float32)
    candidates = np.tile(np.arange(mu.shape[1]), (num_query, 1))
    case = Case(features, num_query, rng.integers(3, size=len(features)), mu, candidates)
    scores = gallery_scores(case, count=min(count, num_gallery - 1), style=style, seed=seed)
    matrix = fused(case, scores, 0.37, with_mu=with_mu)
    assume(separated(matrix))
    options = {**scores, **(case.fusion if with_mu else {}), "alpha": 0.37, "normalize": False}
    actual = k_reciprocal(features, num_query, k1=6, k2=3, squared=squared, **options)
    desired = k_reciprocal_of(matrix, num_query, k1=6, k2=3, squared=squared)
    check_close(actual, desired, rtol=1e-6)
    check_close(
        ecn(features, num_query, k=6, t=2, q=3, **options),
        ecn_of(matrix, num_query, k=6, t=2, q=3),
        rtol=1e-6,
    )
    check_close(
        ca_jaccard(features, num_query, case.camids, **options),
        ca_jaccard_of(matrix, num_query, case.camids),
        rtol=1e-6,
    )

"""One query at a time gives what the joint call gives, bit by bit where distances are exact."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from dense_reference import ref_distances, ref_k_reciprocal
from golden_data import check_close, main_case
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from murank_kernels import OnlineKReciprocal, OnlineQuery, k_reciprocal, simple

Array = NDArray[Any]
Options = dict[str, Any]
ALPHA = 0.37
ZHONG: Options = {"k1": 20, "k2": 6, "squared": True}
VARIANTS: list[Options] = [{}, ZHONG, {"k2": 1}, {"k1": 3, "k2": 9, "lambda_value": 0.0}]


def joint(feature: Array, gallery: Array, **options: Any) -> Array:
    """The call that the online one must equal; mu and candidates are one row, or absent."""
    for name in ("mu", "candidates"):
        if options.get(name) is not None:
            options[name] = np.asarray(options[name])[None]
    found = k_reciprocal(np.concatenate([feature[None], gallery]), 1, **options)
    assert isinstance(found, np.ndarray)
    row: Array = found[0]
    return row


def grid(rng: np.random.Generator, num_rows: int, steps: int, dim: int = 6) -> Array:
    """Coordinates are multiples of 1/4: squared distances are exact in float32, many are equal."""
    return (rng.integers(-steps, steps + 1, (num_rows, dim)) / 4).astype(np.float32)


def people(seed: int, num_rows: int, dim: int = 24) -> Array:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, num_rows // 8), dim))
    noise = 0.6 * rng.standard_normal((num_rows, dim))
    rows: Array = (centres[rng.integers(len(centres), size=num_rows)] + noise).astype(np.float32)
    return rows


def make_query(rng: np.random.Generator, gallery: Array, steps: int, style: str) -> Array:
    feature: Array = grid(rng, 1, steps, gallery.shape[1])[0]
    if style == "twin":
        feature[:] = gallery[rng.integers(len(gallery))]
    if style == "far":  # the largest distance of many rows changes
        feature[:] = 3 * steps
    if style == "hub":
        feature[:] = np.round(4 * gallery.mean(axis=0)) / 4
    return feature


def make_mu(rng: np.random.Generator, distances: Array, style: str) -> tuple[Array, Array]:
    """Mu of some candidates that pulls far ones near, or pushes near ones away."""
    count = int(rng.integers(1, len(distances) + 1))
    order = np.argsort(distances, kind="stable")
    if style == "pull":
        return np.zeros(count), order[::-1][:count]
    if style == "push":
        return np.ones(count), order[:count]
    return np.round(4 * rng.random(count)) / 4, rng.permutation(len(distances))[:count]


def make_gallery_mu(rng: np.random.Generator, num_gallery: int) -> Options:
    others = (np.arange(num_gallery)[:, None] + np.array([1, 3])[: num_gallery - 1]) % num_gallery
    same = others == np.arange(num_gallery)[:, None]
    if num_gallery == 1 or same.any():
        others = (np.arange(num_gallery)[:, None] + 1) % num_gallery
    mu = np.round(4 * rng.random(others.shape)) / 4
    return {"gallery_mu": mu, "gallery_candidates": others}


@settings(derandomize=True, deadline=None, database=None, max_examples=600)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_gallery=st.one_of(st.integers(1, 4), st.integers(5, 60)),
    steps=st.integers(1, 8),
    query_style=st.sampled_from(["any", "twin", "far", "hub"]),
    mu_style=st.sampled_from(["none", "pull", "push", "any"]),
    with_gallery_mu=st.booleans(),
    k1=st.integers(1, 25),
    k2=st.integers(1, 9),
    squared=st.booleans(),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    alpha=st.sampled_from([0.0, ALPHA, 1.0]),
)
def test_same_bits_as_the_joint_call(
    seed: int,
    num_gallery: int,
    steps: int,
    query_style: str,
    mu_style: str,
    with_gallery_mu: bool,
    k1: int,
    k2: int,
    squared: bool,
    share: float,
    alpha: float,
) -> None:
    rng = np.random.default_rng(seed)
    gallery = grid(rng, num_gallery, steps)
    twins = rng.integers(num_gallery, size=(num_gallery // 5, 2))
    gallery[twins[:, 0]] = gallery[twins[:, 1]]
    options: Options = {"k1": k1, "k2": k2, "squared": squared, "lambda_value": share}
    options |= {"alpha": alpha, "normalize": False}
    if with_gallery_mu and num_gallery > 1:
        options |= make_gallery_mu(rng, num_gallery)
    online = OnlineKReciprocal(gallery, **options)
    feature = make_query(rng, gallery, steps, query_style)
    query = online.query(feature)
    if mu_style != "none":
        mu, candidates = make_mu(rng, query.distances(), mu_style)
        query = query.fused(mu, candidates)
        options |= {"mu": mu, "candidates": candidates}
    assert_array_equal(query.reranked(), joint(feature, gallery, **options))


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("with_gallery_mu", [False, True])
def test_unit_rows(options: Options, with_gallery_mu: bool) -> None:
    rows = people(0, 700)
    features, gallery = rows[:12], rows[12:]
    if with_gallery_mu:
        options = {**options, **make_gallery_mu(np.random.default_rng(1), len(gallery))}
    online = OnlineKReciprocal(gallery, alpha=ALPHA, **options)
    for i, feature in enumerate(features):
        query = online.query(feature)
        candidates = query.nearest(10)[1]
        mu = np.random.default_rng(i).random(10)
        desired = joint(feature, gallery, alpha=ALPHA, **options)
        assert_allclose(query.reranked(), desired, rtol=0, atol=1e-6)
        fused = joint(feature, gallery, mu=mu, candidates=candidates, alpha=ALPHA, **options)
        assert_allclose(query.fused(mu, candidates).reranked(), fused, rtol=0, atol=1e-6)
        assert np.abs(fused - desired).max() > 0.01


@pytest.mark.parametrize("options", VARIANTS)
def test_against_the_dense_oracle(options: Options) -> None:
    case = main_case()
    q = case.num_query
    online = OnlineKReciprocal(case.features[q:], **options)
    for i in range(0, q, 25):
        rows = np.concatenate([case.features[i : i + 1], case.features[q:]])
        scores: Options = {"mu": case.mu[i : i + 1], "candidates": case.candidates[i : i + 1]}
        query = online.query(case.features[i])
        check_close(query.reranked(), ref_k_reciprocal(rows, 1, **options)[0])
        fused = query.fused(case.mu[i], case.candidates[i])
        check_close(fused.reranked(), ref_k_reciprocal(rows, 1, **scores, **options)[0])


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("num_gallery", [1, 2, 3, 10, 11, 12])
def test_fewer_rows_than_neighbours(num_gallery: int, options: Options) -> None:
    rows = people(5, num_gallery + 1)
    online = OnlineKReciprocal(rows[1:], **options)
    assert (online.num_gallery, online.dim) == (num_gallery, rows.shape[1])
    query = online.query(rows[0])
    assert_allclose(query.reranked(), joint(rows[0], rows[1:], **options), rtol=0, atol=1e-6)
    mu, candidates = np.array([0.9]), np.array([num_gallery - 1])
    desired = joint(rows[0], rows[1:], mu=mu, candidates=candidates, **options)
    assert_allclose(query.fused(mu, candidates).reranked(), desired, rtol=0, atol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_equal_images(value: float, squared: bool) -> None:
    rows = np.full((40, 4), value, np.float32)
    online = OnlineKReciprocal(rows[1:], squared=squared, normalize=False)
    query = online.query(rows[0])
    assert_array_equal(query.distances(), np.zeros(39, np.float32))
    assert_array_equal(query.reranked(), joint(rows[0], rows[1:], squared=squared, normalize=False))


@pytest.mark.parametrize("options", VARIANTS)
def test_a_query_in_every_list(options: Options) -> None:
    """The gallery stands on a sphere around the query, all at one distance."""
    gallery = np.concatenate([np.eye(150), -np.eye(150)]).astype(np.float32)
    feature = np.zeros(150, np.float32)
    options = {**options, "normalize": False}
    query = OnlineKReciprocal(gallery, **options).query(feature)
    assert np.sort(ref_distances(gallery), axis=1)[:, 1].min() > query.distances().max()
    assert_array_equal(query.reranked(), joint(feature, gallery, **options))


def test_a_query_farther_than_all_others() -> None:
    """Each row's largest distance is the one to the query, and scales its weights."""
    gallery = people(3, 200)
    feature = np.full(gallery.shape[1], 30, np.float32)
    near = OnlineKReciprocal(gallery, normalize=False).query(gallery[0])
    options: Options = {"normalize": False, "squared": True}
    query = OnlineKReciprocal(gallery, **options).query(feature)
    assert query.distances().min() > 3 * near.distances().max()
    assert_allclose(query.reranked(), joint(feature, gallery, **options), rtol=0, atol=1e-6)


def some_query(seed: int = 4) -> tuple[OnlineQuery, Array, Array]:
    rows = people(seed, 600)
    return OnlineKReciprocal(rows[1:], alpha=ALPHA).query(rows[0]), rows[0], rows[1:]


def test_nearest_are_the_encoder_s_own() -> None:
    query, feature, gallery = some_query()
    desired = simple(np.concatenate([feature[None], gallery]), 1)
    assert isinstance(desired, np.ndarray)
    assert_allclose(query.distances(), desired[0], rtol=0, atol=1e-6)
    for k in (1, 30, 599):
        distances, indices = query.nearest(k)
        assert distances.dtype == np.float32
        assert indices.dtype == np.int32
        assert_array_equal(indices, np.argsort(query.distances(), kind="stable")[:k])
        assert_array_equal(distances, query.distances()[indices])


def test_the_best_of_the_final_order() -> None:
    query, _, _ = some_query()
    final = query.reranked()
    assert final.dtype == np.float32
    for k in (1, 30, 599):
        distances, indices = query.reranked_top(k)
        assert distances.dtype == np.float32
        assert indices.dtype == np.int32
        assert_array_equal(indices, np.argsort(final, kind="stable")[:k])
        assert_array_equal(distances, final[indices])


def test_equal_distances_come_in_the_gallery_s_order() -> None:
    gallery = np.tile(grid(np.random.default_rng(0), 20, 3), (3, 1))
    query = OnlineKReciprocal(gallery, normalize=False).query(gallery[7])
    assert query.nearest(3)[1].tolist() == [7, 27, 47]
    distances, indices = query.reranked_top(60)
    assert_array_equal(indices, np.lexsort((np.arange(60), query.reranked())))
    assert len(np.unique(distances)) < 60


def test_fused_distances() -> None:
    query, feature, gallery = some_query()
    mu, candidates = np.array([1.0, 0.25, 0.0]), np.array([500, 3, 9])
    desired = simple(
        np.concatenate([feature[None], gallery]), 1,
        mu=mu[None], candidates=candidates[None], alpha=ALPHA,
    )  # fmt: skip
    assert isinstance(desired, np.ndarray)
    before, final = query.distances(), query.reranked()
    fused = query.fused(mu, candidates)
    assert_allclose(fused.distances(), desired[0], rtol=0, atol=1e-6)
    expected = (1 - ALPHA) * before[candidates] + ALPHA * 2 * mu
    assert_allclose(fused.distances()[candidates], expected, rtol=1e-6)
    assert_array_equal(query.distances(), before)
    assert_array_equal(query.reranked(), final)


def test_mu_that_comes_in_parts() -> None:
    query, feature, gallery = some_query()
    candidates = query.nearest(12)[1]
    mu = np.random.default_rng(0).random(12)
    parts = query
    for start in range(0, 12, 5):
        parts = parts.fused(mu[start : start + 5], candidates[start : start + 5])
    assert_array_equal(parts.distances(), query.fused(mu, candidates).distances())
    desired = joint(feature, gallery, mu=mu, candidates=candidates, alpha=ALPHA)
    assert_allclose(parts.reranked(), desired, rtol=0, atol=1e-6)


def test_a_second_opinion_replaces_the_first() -> None:
    query, _, _ = some_query()
    twice = query.fused([0.9, 0.1], [4, 5]).fused([0.3], [4])
    assert_array_equal(twice.distances(), query.fused([0.3, 0.1], [4, 5]).distances())


def test_nobody_scored_yet() -> None:
    query, _, _ = some_query()
    assert_array_equal(query.fused([], []).reranked(), query.reranked())


def test_weightless_mu_changes_nothing() -> None:
    rows = people(6, 200)
    query = OnlineKReciprocal(rows[1:], alpha=0.0).query(rows[0])
    assert_allclose(query.fused([1.0], [0]).reranked(), query.reranked(), rtol=0, atol=1e-6)


def test_queries_do_not_disturb_each_other() -> None:
    rows = people(7, 900)
    online = OnlineKReciprocal(rows[100:])

    def answer(i: int) -> Array:
        query = online.query(rows[i])
        return query.fused(np.full(8, 0.25), query.nearest(8)[1]).reranked()

    one_by_one = [answer(i) for i in range(100)]
    kept = [online.query(rows[i]) for i in range(100)]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(answer, range(100)))
    for i in range(100):
        assert_array_equal(at_once[i], one_by_one[i])
        query = kept[i].fused(np.full(8, 0.25), kept[i].nearest(8)[1])
        assert_array_equal(query.reranked(), one_by_one[i])


def test_answers_are_the_caller_s_own() -> None:
    query, _, _ = some_query()
    first = query.reranked()
    for array in (query.distances(), query.reranked(), *query.nearest(5), *query.reranked_top(5)):
        array[:] = 0
    assert_array_equal(query.reranked(), first)


def test_the_gallery_is_copied() -> None:
    rows = people(8, 80)
    gallery = rows[1:].copy()
    online = OnlineKReciprocal(gallery, normalize=False)
    before = online.query(rows[0]).reranked()
    gallery[:] = 1
    assert_array_equal(online.query(rows[0]).reranked(), before)


def test_any_width_of_the_same_numbers() -> None:
    rows = np.round(people(9, 60), 1).astype(np.float16)
    desired = OnlineKReciprocal(rows[1:].astype(np.float32)).query(rows[0].astype(np.float32))
    forms: list[Any] = [rows, rows.astype(np.float64), np.asfortranarray(rows.astype(">f4"))]
    for form in [*forms, rows.astype(np.float64).tolist()]:
        query = OnlineKReciprocal(form[1:]).query(form[0])
        assert_allclose(query.reranked(), desired.reranked(), rtol=0, atol=1e-6)
        fused = query.fused(np.ones(3, np.float16), np.arange(3, dtype=np.uint8))
        assert_allclose(fused.reranked(), desired.fused([1.0] * 3, [0, 1, 2]).reranked(), atol=1e-6)


def test_progress_of_the_gallery_s_lists() -> None:
    seen: list[tuple[str, int, int]] = []
    OnlineKReciprocal(people(1, 600), progress=lambda *step: seen.append(step))
    assert seen[-1][1:] == (3, 3)
    assert {stage for stage, _, _ in seen} == {"neighbours"}

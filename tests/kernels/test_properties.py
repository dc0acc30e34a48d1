"""Kernels against the oracle on random shapes, ties, hubs, far candidates and cameras."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from dense_reference import (
    ref_ca_jaccard,
    ref_distances,
    ref_ecn,
    ref_evaluate_rank,
    ref_fuse,
    ref_k_reciprocal,
    ref_re_ranking,
    ref_simple,
    ref_trapezoid,
)
from golden_data import Case, check_close
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from murank_kernels import (
    ca_jaccard,
    ecn,
    evaluate_rank,
    k_reciprocal,
    re_ranking,
    simple,
)

few = partial(settings, derandomize=True, deadline=None, database=None)
ALPHA = 0.37  # fused and plain distances of a grid do not coincide
SAME = 1e-6  # relative: distances of these inputs are not bounded by 2
ECN_METHODS: list[Any] = ["rankdist", "origdist"]
STYLES = ["none", "near", "far", "random", "hub"]
CAMERAS = ["one", "own", "some"]


def choose_candidates(
    rng: np.random.Generator, distances: NDArray[np.float64], style: str, count: int
) -> NDArray[np.int64]:
    num_query, num_gallery = distances.shape
    order = np.argsort(distances, axis=1)
    if style == "near":
        return order[:, :count]
    if style == "far":  # the row's maximum changes
        return order[:, ::-1][:, :count]
    if style == "hub":  # every query names the same items
        return np.tile(rng.permutation(num_gallery)[:count], (num_query, 1))
    return np.argsort(rng.random((num_query, num_gallery)), axis=1)[:, :count]


def make_case(
    seed: int,
    num_rows: int,
    num_query: int,
    *,
    style: str,
    count: int,
    cameras: str,
    steps: int,
    coarse: bool = False,
) -> Case:
    """Coordinates are multiples of 1/4: squared distances are exact in float32, many are equal."""
    rng = np.random.default_rng(seed)
    features = (rng.integers(-steps, steps + 1, (num_rows, 8)) / 4).astype(np.float32)
    twins = rng.integers(num_rows, size=(num_rows // 8, 2))
    features[twins[:, 0]] = features[twins[:, 1]]
    camids = {
        "one": np.full(num_rows, 3),
        "own": rng.permutation(num_rows),
        "some": rng.integers(3, size=num_rows),
    }[cameras]
    if style == "none":
        return Case(features, num_query, camids)
    plain = ref_distances(features)[:num_query, num_query:]
    candidates = choose_candidates(rng, plain, style, count)
    mu = rng.random(candidates.shape, np.float32) ** 2
    if coarse:  # equal fused distances too
        mu = np.round(4 * mu) / np.float32(4)
    return Case(features, num_query, camids, mu, candidates)


def separated(case: Case, alpha: float) -> bool:
    """Fused distances of a row are equal, or far enough apart for float32 to keep their order."""
    distances = ref_fuse(ref_distances(case.features), case.num_query, **case.fusion, alpha=alpha)
    gaps = np.diff(np.sort(distances, axis=1), axis=1)
    return not ((gaps > 0) & (gaps < 2e-6)).any()


@st.composite
def cases(draw: st.DrawFn) -> tuple[Case, float]:
    num_rows = draw(st.integers(2, 70))
    num_query = draw(st.integers(1, min(num_rows - 1, 20)))
    case = make_case(
        draw(st.integers(0, 2**32 - 1)),
        num_rows,
        num_query,
        style=draw(st.sampled_from(STYLES)),
        count=draw(st.integers(1, num_rows - num_query)),
        cameras=draw(st.sampled_from(CAMERAS)),
        steps=draw(st.integers(1, 9)),
        coarse=draw(st.booleans()),
    )
    alpha = draw(st.sampled_from([0.0, 0.2, ALPHA, 1.0]))
    assume(separated(case, alpha))
    return case, alpha


@few(max_examples=80)
@given(cases(), st.integers(1, 30), st.integers(1, 12), st.booleans(), st.sampled_from([0, 0.3, 1]))
def test_k_reciprocal(
    drawn: tuple[Case, float], k1: int, k2: int, squared: bool, share: float
) -> None:
    case, alpha = drawn
    options: dict[str, Any] = {"k1": k1, "k2": k2, "squared": squared, "lambda_value": share}
    options |= {"alpha": alpha, **case.fusion}
    actual = k_reciprocal(case.features, case.num_query, normalize=False, **options)
    check_close(actual, ref_k_reciprocal(case.features, case.num_query, **options), SAME)


@few(max_examples=60)
@given(
    cases(),
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(1, 10),
    st.sampled_from(ECN_METHODS),
)
def test_ecn(drawn: tuple[Case, float], k: int, t: int, q: int, method: Any) -> None:
    case, alpha = drawn
    options: dict[str, Any] = {"k": k, "t": t, "q": q, "method": method, "alpha": alpha}
    options |= case.fusion
    actual = ecn(case.features, case.num_query, normalize=False, **options)
    check_close(actual, ref_ecn(case.features, case.num_query, **options), SAME)


@few(max_examples=80)
@given(
    cases(),
    st.tuples(*[st.integers(1, 25)] * 3),
    st.tuples(st.integers(2, 8), st.integers(1, 8), st.integers(1, 8)),
    st.booleans(),
    st.booleans(),
)
def test_ca_jaccard(
    drawn: tuple[Case, float],
    k1s: tuple[int, ...],
    k2s: tuple[int, ...],
    ckrnns: bool,
    clqe: bool,
) -> None:
    case, alpha = drawn
    options: dict[str, Any] = dict(zip(("k1", "k1_intra", "k1_inter"), k1s, strict=True))
    options |= zip(("k2", "k2_intra", "k2_inter"), k2s, strict=True)
    options |= {"ckrnns": ckrnns, "clqe": clqe, "alpha": alpha, **case.fusion}
    features, num_query = case.features, case.num_query
    actual = ca_jaccard(features, num_query, case.camids, normalize=False, **options)
    check_close(actual, ref_ca_jaccard(features, num_query, case.camids, **options), SAME)


@few(max_examples=40)
@given(cases())
def test_simple(drawn: tuple[Case, float]) -> None:
    case, alpha = drawn
    actual = simple(case.features, case.num_query, alpha=alpha, normalize=False, **case.fusion)
    check_close(actual, ref_simple(case.features, case.num_query, alpha=alpha, **case.fusion), SAME)


@few(max_examples=40)
@given(cases(), st.integers(1, 30), st.integers(1, 12))
def test_re_ranking(drawn: tuple[Case, float], k1: int, k2: int) -> None:
    case, _ = drawn
    q, distances = case.num_query, ref_distances(case.features)
    given_blocks = distances[:q, q:], distances[:q, :q], distances[q:, q:]
    check_close(re_ranking(*given_blocks, k1, k2), ref_re_ranking(*given_blocks, k1, k2), SAME)


@few(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 64))
def test_unit_rows(seed: int, num_rows: int, width: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((num_rows, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    case = Case(rows.astype(np.float32), max(1, num_rows // 4))
    assume(separated(case, 0.2))
    actual = k_reciprocal(case.features, case.num_query, k1=6, k2=3)
    check_close(actual, ref_k_reciprocal(case.features, case.num_query, k1=6, k2=3))


@few(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 90), st.integers(1, 60))
def test_evaluation(seed: int, num_query: int, num_gallery: int, max_rank: int) -> None:
    rng = np.random.default_rng(seed)
    q_pids, g_pids = (rng.integers(-1, 6, size) for size in (num_query, num_gallery))
    q_cams, g_cams = (rng.integers(0, 3, size) for size in (num_query, num_gallery))
    q_pids = np.abs(q_pids)
    distances = rng.integers(0, 12, (num_query, num_gallery)) / 7
    marks = (q_pids, g_pids, q_cams, g_cams, max_rank)
    desired = ref_evaluate_rank(distances, *marks)
    assume(desired.num_valid > 0)
    for key, value in vars(desired).items():
        assert_allclose(
            getattr(evaluate_rank(distances, *marks, junk="keep"), key), value, atol=1e-12
        )
    trapezoid = evaluate_rank(distances, *marks, protocol="trapezoid")
    for key, value in vars(ref_trapezoid(distances, *marks)).items():
        assert_allclose(getattr(trapezoid, key), value, atol=1e-12)


def separated_case(num_rows: int, num_query: int, style: str) -> Case:
    settings: dict[str, Any] = {"style": style, "count": 9, "cameras": "some", "steps": 2}
    settings["coarse"] = True
    tries = (make_case(seed, num_rows, num_query, **settings) for seed in range(20))
    return next(case for case in tries if separated(case, ALPHA))


@pytest.mark.parametrize(
    ("num_rows", "style"),
    [(511, "none"), (512, "hub"), (513, "none"), (513, "hub"), (1025, "hub")],
)
def test_around_the_size_of_a_tile(num_rows: int, style: str) -> None:
    case = separated_case(num_rows, 65, style)
    features, q, fusion = case.features, case.num_query, {**case.fusion, "alpha": ALPHA}
    for squared in (False, True):
        actual = k_reciprocal(features, q, squared=squared, normalize=False, **fusion)
        check_close(actual, ref_k_reciprocal(features, q, squared=squared, **fusion), SAME)
    actual = ca_jaccard(features, q, case.camids, clqe=True, normalize=False, **fusion)
    check_close(actual, ref_ca_jaccard(features, q, case.camids, clqe=True, **fusion), SAME)
    for method in ECN_METHODS:
        actual = ecn(features, q, method=method, normalize=False, **fusion)
        check_close(actual, ref_ecn(features, q, method=method, **fusion), SAME)


@pytest.mark.parametrize("num_query", [1, 600, 1099])
def test_queries_fill_tiles_too(num_query: int) -> None:
    case = separated_case(1100, num_query, "hub")
    features, fusion = case.features, {**case.fusion, "alpha": ALPHA}
    actual = k_reciprocal(features, num_query, normalize=False, **fusion)
    check_close(actual, ref_k_reciprocal(features, num_query, **fusion), SAME)

"""The oracle against the golden vectors: it must be right before it judges anything."""

from typing import Any

import numpy as np
import pytest
from dense_reference import (
    RefEvaluation,
    ref_ca_jaccard,
    ref_distances,
    ref_ecn,
    ref_encode,
    ref_evaluate_rank,
    ref_expand_queries,
    ref_expanded,
    ref_jaccard,
    ref_k_reciprocal,
    ref_lists,
    ref_normalised,
    ref_re_ranking,
    ref_simple,
    ref_trapezoid,
)
from golden_data import Case, degenerate_case, golden, main_case, tiny_case
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray


def check(actual: NDArray[Any], desired: NDArray[Any]) -> None:
    tolerance = 1e-6 if desired.dtype == np.float32 else 1e-10
    assert_allclose(actual, desired, rtol=0, atol=tolerance)


def check_csr(dense: NDArray[Any], stored: dict[str, NDArray[Any]], name: str) -> None:
    indptr, indices = stored[f"{name}_indptr"], stored[f"{name}_indices"]
    rows, columns = np.nonzero(dense)
    assert_array_equal(np.bincount(rows, minlength=len(dense)), np.diff(indptr))
    assert_array_equal(columns, indices)
    check(dense[rows, columns], stored[f"{name}_data"])


ZHONG = [(20, 6, 30), (10, 5, 30), (25, 6, 30), (15, 1, 30), (7, 3, 0), (30, 10, 50)]


@pytest.mark.parametrize(("k1", "k2", "share"), ZHONG)
def test_zhong(k1: int, k2: int, share: int) -> None:
    case = main_case()
    settings: dict[str, Any] = {"k1": k1, "k2": k2, "lambda_value": share / 100}
    desired = golden("main_zhong")[f"dist_k{k1}_{k2}_l{share}"]
    check(ref_k_reciprocal(case.features, case.num_query, squared=True, **settings), desired)
    distances, q = ref_distances(case.features), case.num_query
    check(
        ref_re_ranking(distances[:q, q:], distances[:q, :q], distances[q:, q:], **settings), desired
    )


def test_zhong_step_by_step() -> None:
    case, stored = main_case(), golden("main_zhong")
    check(ref_distances(case.features, squared=True).max(axis=1), stored["rowmax_sq"])
    nd = ref_normalised(case.features, case.num_query, squared=True)
    lists = ref_lists(nd, 21)
    assert_array_equal(lists, stored["rank21"])
    codes = ref_encode(nd, ref_expanded(lists, 20))
    check_csr(codes, stored, "V")
    codes = ref_expand_queries(codes, lists[:, :6])
    check_csr(codes, stored, "Vqe")
    check(ref_jaccard(codes, 10), stored["jaccard_rows0_9"])


def test_muse_step_by_step() -> None:
    case, stored = main_case(), golden("main_muse_krnn")
    nd = ref_normalised(case.features, case.num_query, **case.fusion)
    lists = ref_lists(nd, 11)
    assert_array_equal(lists, stored["mu_rank11"])
    codes = ref_encode(nd, ref_expanded(lists, 10))
    check_csr(codes, stored, "mu_V")
    check_csr(ref_expand_queries(codes, lists[:, :5]), stored, "mu_Vqe")


def test_muse_k_reciprocal() -> None:
    case, stored = main_case(), golden("main_muse_krnn")
    features, q, fusion = case.features, case.num_query, case.fusion
    check(ref_k_reciprocal(features, q), stored["dist_plain"])
    check(ref_k_reciprocal(features, q, **fusion), stored["dist_mu"])
    both = 0.5 * (fusion["mu"].astype(float) + golden("main_inputs")["mu_swapped"])
    actual = ref_k_reciprocal(features, q, mu=both, candidates=fusion["candidates"])
    check(actual, stored["dist_mu_swap"])
    actual = ref_k_reciprocal(features, q, k1=20, k2=6, alpha=0.5, **fusion)
    check(actual, stored["dist_mu_k20_6_a50"])


@pytest.mark.parametrize("percent", [20, 50])
def test_simple(percent: int) -> None:
    case = main_case()
    actual = ref_simple(case.features, case.num_query, alpha=percent / 100, **case.fusion)
    check(actual, golden("main_muse_simple")[f"dist_a{percent}"])


@pytest.mark.parametrize("method", ["rankdist", "origdist"])
@pytest.mark.parametrize("kind", ["plain", "mu"])
def test_ecn(method: str, kind: str) -> None:
    case = main_case()
    fusion = case.fusion if kind == "mu" else {}
    actual = ref_ecn(case.features, case.num_query, method=method, **fusion)
    check(actual, golden("main_ecn")[f"dist_{method}_{kind}"])


@pytest.mark.parametrize("ckrnns", [False, True])
@pytest.mark.parametrize("clqe", [False, True])
@pytest.mark.parametrize("kind", ["plain", "mu"])
def test_ca_jaccard(ckrnns: bool, clqe: bool, kind: str) -> None:
    case = main_case()
    fusion = case.fusion if kind == "mu" else {}
    actual = ref_ca_jaccard(
        case.features, case.num_query, case.camids, ckrnns=ckrnns, clqe=clqe, **fusion
    )
    check(actual, golden("main_caj")[f"dist_ck{ckrnns:d}_clqe{clqe:d}_{kind}"])


def test_tiny() -> None:
    case, stored = tiny_case(), golden("tiny12")
    features, q, fusion = case.features, case.num_query, case.fusion
    variants: list[tuple[str, dict[str, Any]]] = [
        ("zhong", {"squared": True}),
        ("muse_plain", {}),
        ("muse_mu", fusion),
    ]
    for name, settings in variants:
        nd = ref_normalised(features, q, **settings)
        lists = ref_lists(nd, 12)
        assert_array_equal(lists, stored[f"{name}_rank"])
        codes = ref_encode(nd, ref_expanded(lists, 4))
        check(codes, stored[f"{name}_V"])
        expanded = ref_expand_queries(codes, lists[:, :2])
        check(expanded, stored[f"{name}_Vqe"])
        actual = ref_k_reciprocal(features, q, k1=4, k2=2, **settings)
        check(actual, stored[f"{name}_dist_k4_2_l30"])
        if name == "zhong":
            check(nd[:q], stored["normalised_sq"])
            check(ref_jaccard(expanded, q), stored["zhong_jaccard"])
    for method in ("rankdist", "origdist"):
        actual = ref_ecn(features, q, k=4, t=2, q=2, method=method)
        check(actual, stored[f"ecn_{method}_k4_t2_q2"])


def degenerate_outputs(name: str, case: Case) -> dict[str, NDArray[Any]]:
    features, q, fusion = case.features, case.num_query, case.fusion
    alpha = 0.25 if name == "grid" else 0.2
    out = {
        "zhong_k20_6": ref_k_reciprocal(features, q, k1=20, k2=6, squared=True),
        "zhong_k8_3": ref_k_reciprocal(features, q, k1=8, k2=3, squared=True),
        "muse_k10_5": ref_k_reciprocal(features, q),
    }
    if case.mu is not None:
        out["muse_mu_k10_5"] = ref_k_reciprocal(features, q, alpha=alpha, **fusion)
    if name in ("grid", "ident"):
        out["ecn_rankdist"] = ref_ecn(features, q)
    if case.camids is not None:
        for clqe in (False, True):
            actual = ref_ca_jaccard(features, q, case.camids, clqe=clqe)
            out[f"caj_ck1_clqe{clqe:d}"] = actual
    return out


@pytest.mark.parametrize("name", ["grid", "small", "mini", "oneq", "smallcam", "ident"])
def test_degenerate(name: str) -> None:
    stored = golden("degenerate")
    outputs = degenerate_outputs(name, degenerate_case(name))
    prefix = f"{name}_"
    inputs = {"X", "num_query", "camid", "mu", "gallery_indices"}
    keys = {key[len(prefix) :] for key in stored if key.startswith(prefix)} - inputs
    if name == "ident":
        keys.remove("zhong_k20_6")  # 0/0 in the reference
        assert np.isfinite(outputs["zhong_k20_6"]).all()
    assert keys <= set(outputs)
    for key in keys:
        check(outputs[key], stored[prefix + key])


EVALUATED = {
    "euclid": None,
    "zhong": ("main_zhong", "dist_k20_6_l30"),
    "muse_mu": ("main_muse_krnn", "dist_mu"),
    "ecn": ("main_ecn", "dist_rankdist_plain"),
    "simple": ("main_muse_simple", "dist_a20"),
    "ties": ("eval", "ties_D"),
    "small": ("eval", "small_D"),
}


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluation(name: str) -> None:
    stored, source = golden("eval"), EVALUATED[name]
    prefix = f"{name}_" if name in ("ties", "small") else ""
    q_pid, g_pid, q_cam, g_cam = (
        stored[prefix + key] for key in ("q_pid", "g_pid", "q_cam", "g_cam")
    )
    case = main_case()
    if source is None:
        distances = ref_simple(case.features, case.num_query)
    else:
        distances = golden(source[0])[source[1]]
    max_rank = 20 if name == "ties" else 50
    market = ref_evaluate_rank(distances, q_pid, g_pid, q_cam, g_cam, max_rank)
    for key, actual in vars(market).items():
        desired = stored[f"{name}__{key.removeprefix('all_')}"]
        # The references take the mean of the CMC in float32.
        check(np.asarray(actual), desired.astype(np.float32) if key == "cmc" else desired)
    trapezoid: RefEvaluation = ref_trapezoid(distances, q_pid, g_pid, q_cam, g_cam, max_rank)
    check(trapezoid.all_AP, stored[f"{name}__AP_trapezoid"])
    check(np.asarray(trapezoid.mAP), stored[f"{name}__mAP_trapezoid_all_queries"])
    check(trapezoid.cmc, stored[f"{name}__cmc_all_queries"].astype(np.float32))

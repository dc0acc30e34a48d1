"""Ties, duplicates, fewer items than k, one query, small cameras, equal images."""

from typing import Any, Literal

import numpy as np
import pytest
from dense_reference import ref_ca_jaccard, ref_distances, ref_ecn, ref_k_reciprocal
from golden_data import check_close, degenerate_case, golden

from murank_kernels import ca_jaccard, ecn, k_reciprocal, re_ranking, simple

K_RECIPROCAL: dict[str, dict[str, Any]] = {
    "zhong_k20_6": {"k1": 20, "k2": 6, "squared": True},
    "zhong_k8_3": {"k1": 8, "k2": 3, "squared": True},
    "muse_k10_5": {},
}
STORED = [
    (name, key)
    for name in ("grid", "small", "mini", "oneq")
    for key in K_RECIPROCAL
    if name == "grid" or key != "zhong_k8_3"
]


@pytest.mark.parametrize(("name", "key"), STORED)
def test_k_reciprocal(name: str, key: str) -> None:
    case = degenerate_case(name)
    settings = {"normalize": name != "grid", **K_RECIPROCAL[key]}
    actual = k_reciprocal(case.features, case.num_query, **settings)
    check_close(actual, golden("degenerate")[f"{name}_{key}"])


@pytest.mark.parametrize(("name", "alpha"), [("grid", 0.25), ("oneq", 0.2)])
def test_fused_k_reciprocal(name: str, alpha: float) -> None:
    case = degenerate_case(name)
    actual = k_reciprocal(
        case.features, case.num_query, alpha=alpha, normalize=name != "grid", **case.fusion
    )
    check_close(actual, golden("degenerate")[f"{name}_muse_mu_k10_5"])


def test_ties_in_ecn() -> None:
    case = degenerate_case("grid")
    actual = ecn(case.features, case.num_query, normalize=False)
    check_close(actual, golden("degenerate")["grid_ecn_rankdist"])


@pytest.mark.parametrize(
    ("name", "clqe"), [("grid", True), ("smallcam", False), ("smallcam", True)]
)
def test_ca_jaccard(name: str, clqe: bool) -> None:
    case = degenerate_case(name)
    actual = ca_jaccard(
        case.features, case.num_query, case.camids, clqe=clqe, normalize=name != "grid"
    )
    check_close(actual, golden("degenerate")[f"{name}_caj_ck1_clqe{clqe:d}"])


def test_ties_in_re_ranking() -> None:
    case = degenerate_case("grid")
    q, distances = case.num_query, ref_distances(case.features)
    actual = re_ranking(distances[:q, q:], distances[:q, :q], distances[q:, q:])
    check_close(actual, golden("degenerate")["grid_zhong_k20_6"])


@pytest.mark.parametrize("normalize", [False, True])
def test_equal_images(normalize: bool) -> None:
    """Zhong et al. divide 0 by 0 here; that quotient is 0."""
    case, stored = degenerate_case("ident"), golden("degenerate")
    features, q = case.features, case.num_query
    zhong = k_reciprocal(features, q, k1=20, k2=6, squared=True, normalize=normalize)
    check_close(zhong, ref_k_reciprocal(features, q, k1=20, k2=6, squared=True))
    muse = k_reciprocal(features, q, normalize=normalize)
    check_close(muse, stored["ident_muse_k10_5"])
    check_close(ecn(features, q, normalize=normalize), stored["ident_ecn_rankdist"])
    assert not np.any(simple(features, q, normalize=normalize))


@pytest.mark.parametrize("method", ["rankdist", "origdist"])
@pytest.mark.parametrize("name", ["small", "mini"])
def test_ecn_with_fewer_items_than_places(
    name: str, method: Literal["rankdist", "origdist"]
) -> None:
    case = degenerate_case(name)
    actual = ecn(case.features, case.num_query, method=method)
    check_close(actual, ref_ecn(case.features, case.num_query, method=method))


@pytest.mark.parametrize("clqe", [False, True])
@pytest.mark.parametrize("name", ["small", "mini"])
def test_ca_jaccard_with_fewer_items_than_places(name: str, clqe: bool) -> None:
    case = degenerate_case(name)
    camids = np.arange(len(case.features)) % 2
    actual = ca_jaccard(case.features, case.num_query, camids, clqe=clqe)
    check_close(actual, ref_ca_jaccard(case.features, case.num_query, camids, clqe=clqe))


@pytest.mark.parametrize("squared", [False, True])
def test_two_images(squared: bool) -> None:
    features = np.array([[1, 0], [0, 1]], np.float32)
    actual = k_reciprocal(features, 1, squared=squared)
    check_close(actual, ref_k_reciprocal(features, 1, squared=squared))
    check_close(ecn(features, 1), ref_ecn(features, 1))


def test_zero_rows_are_fine_unless_normalised() -> None:
    features = np.zeros((9, 4), np.float32)
    features[4:, 0] = np.arange(5)
    check_close(k_reciprocal(features, 3, normalize=False), ref_k_reciprocal(features, 3))

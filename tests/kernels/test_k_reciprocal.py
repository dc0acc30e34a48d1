from typing import Any

import pytest
from golden_data import check_close, golden, main_case, tiny_case

from murank_kernels import k_reciprocal

ZHONG = [(20, 6, 30), (10, 5, 30), (25, 6, 30), (15, 1, 30), (7, 3, 0), (30, 10, 50)]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("k1", "k2", "share"), ZHONG)
def test_zhong(k1: int, k2: int, share: int, normalize: bool) -> None:
    case = main_case()
    actual = k_reciprocal(
        case.features,
        case.num_query,
        k1=k1,
        k2=k2,
        lambda_value=share / 100,
        squared=True,
        normalize=normalize,
    )
    check_close(actual, golden("main_zhong")[f"dist_k{k1}_{k2}_l{share}"])


@pytest.mark.parametrize(
    ("key", "settings"),
    [("dist_mu", {}), ("dist_mu_k20_6_a50", {"k1": 20, "k2": 6, "alpha": 0.5})],
)
def test_fused(key: str, settings: dict[str, Any]) -> None:
    case = main_case()
    actual = k_reciprocal(case.features, case.num_query, **case.fusion, **settings)
    check_close(actual, golden("main_muse_krnn")[key])


def test_plain() -> None:
    case = main_case()
    check_close(k_reciprocal(case.features, case.num_query), golden("main_muse_krnn")["dist_plain"])


def test_mean_of_both_orders() -> None:
    case = main_case()
    both = 0.5 * (case.mu + golden("main_inputs")["mu_swapped"])
    actual = k_reciprocal(case.features, case.num_query, mu=both, candidates=case.candidates)
    check_close(actual, golden("main_muse_krnn")["dist_mu_swap"])


@pytest.mark.parametrize(
    ("key", "settings"),
    [("zhong_dist", {"squared": True}), ("muse_plain_dist", {}), ("muse_mu_dist", {"mu": True})],
)
def test_tiny(key: str, settings: dict[str, Any]) -> None:
    case = tiny_case()
    if settings.get("mu"):
        settings = case.fusion
    actual = k_reciprocal(case.features, case.num_query, k1=4, k2=2, **settings)
    check_close(actual, golden("tiny12")[f"{key}_k4_2_l30"])


def test_lambda_one_is_the_normalised_distance() -> None:
    case, q = main_case(), main_case().num_query
    actual = k_reciprocal(case.features, q, squared=True, lambda_value=1.0)
    rows = case.features.astype(float)
    squared = 2 - 2 * rows[:q] @ rows.T
    check_close(actual, squared[:, q:] / golden("main_zhong")["rowmax_sq"][:q, None])

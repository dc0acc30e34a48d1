import numpy as np
import pytest
from dense_reference import ref_distances, ref_re_ranking
from golden_data import check_close, golden, main_case
from numpy.typing import NDArray

from murank_kernels import k_reciprocal, re_ranking

Blocks = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def blocks() -> Blocks:
    case = main_case()
    q, distances = case.num_query, ref_distances(case.features)
    return distances[:q, q:], distances[:q, :q], distances[q:, q:]


@pytest.mark.parametrize(
    ("k1", "k2", "share"), [(20, 6, 30), (10, 5, 30), (15, 1, 30), (7, 3, 0), (30, 10, 50)]
)
def test_golden(k1: int, k2: int, share: int) -> None:
    actual = re_ranking(*blocks(), k1, k2, share / 100)
    check_close(actual, golden("main_zhong")[f"dist_k{k1}_{k2}_l{share}"])


def test_defaults_are_those_of_the_field() -> None:
    check_close(re_ranking(*blocks()), golden("main_zhong")["dist_k20_6_l30"])


def test_float32_matrices() -> None:
    q_g, q_q, g_g = (block.astype(np.float32) for block in blocks())
    check_close(re_ranking(q_g, q_q, g_g), golden("main_zhong")["dist_k20_6_l30"])


def test_same_as_from_features() -> None:
    case = main_case()
    other = k_reciprocal(case.features, case.num_query, k1=20, k2=6, squared=True)
    check_close(re_ranking(*blocks()), np.asarray(other))


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (8, 1), (60, 70)])
def test_asymmetric_matrices(k1: int, k2: int) -> None:
    rng = np.random.default_rng(5)
    q_q, q_g, g_g = (rng.uniform(0.1, 2, shape) for shape in ((11, 11), (11, 50), (50, 50)))
    np.fill_diagonal(q_q, 0)
    np.fill_diagonal(g_g, 0)
    q_g, q_q, g_g = (np.round(block, 3) for block in (q_g, q_q, g_g))
    check_close(re_ranking(q_g, q_q, g_g, k1, k2), ref_re_ranking(q_g, q_q, g_g, k1, k2))


def test_all_zero() -> None:
    zero = np.zeros((2, 3)), np.zeros((2, 2)), np.zeros((3, 3))
    check_close(re_ranking(*zero), ref_re_ranking(*zero))

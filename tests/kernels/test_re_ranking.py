import numpy as np
import pytest
from dense_reference import ref_distances, ref_re_ranking
from golden_data import check_close, golden, main_case
from numpy.typing import NDArray

from murank_kernels import InvalidInputError, k_reciprocal, re_ranking

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


def similarities(shift: float = 0.0) -> Blocks:
    """Cosine similarities, with all of them moved up by `shift`."""
    case = main_case()
    q, dots = case.num_query, case.features.astype(np.float64) @ case.features.T + shift
    return dots[:q, q:], dots[:q, :q], dots[q:, q:]


@pytest.mark.parametrize("shift", [0.0, 1.0, 100.0])  # some negative; none; little contrast
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_similarities_are_refused(shift: float, dtype: type[np.floating]) -> None:
    blocks_ = [block.astype(dtype) for block in similarities(shift)]
    with pytest.raises(InvalidInputError, match=r"1 - similarity"):
        re_ranking(blocks_[0], blocks_[1], blocks_[2])


@pytest.mark.parametrize("place", [1, 2])
def test_one_matrix_of_similarities_is_named(place: int) -> None:
    mixed = list(blocks())
    mixed[place] = similarities(1.0)[place]
    with pytest.raises(InvalidInputError, match=["", "q_q_dist", "g_g_dist"][place]):
        re_ranking(mixed[0], mixed[1], mixed[2])


def test_negative_and_nan() -> None:
    for place, value in ((0, -0.5), (1, -2.0), (2, -1.0), (0, np.nan), (1, np.nan), (2, np.nan)):
        changed = [block.copy() for block in blocks()]
        changed[place][0, 1] = value
        with pytest.raises(InvalidInputError, match=["q_g", "q_q", "g_g"][place]):
            re_ranking(changed[0], changed[1], changed[2])


def test_converted_similarities_are_distances() -> None:
    """As the message says; rounding puts some of the diagonal below 0."""
    half = [(1 - block.astype(np.float16)).astype(np.float32) for block in similarities()]
    half[1][0, 0] = -(2.0**-11)
    re_ranking(half[0], half[1], half[2])
    euclidean = [np.sqrt(np.maximum(2 - 2 * block, 0)) for block in similarities()]
    check_close(
        re_ranking(euclidean[0], euclidean[1], euclidean[2]),
        re_ranking(*blocks()).astype(np.float64),
        rtol=1e-5,
    )


def test_distances_that_tell_little() -> None:
    """One query and one item, equal rows, duplicates, and items seen twice: no false alarm."""
    one = np.ones((1, 1))
    re_ranking(one, one, one)
    re_ranking(np.ones((2, 3)), np.ones((2, 2)), np.ones((3, 3)))
    twins = np.zeros((4, 4))
    twins[:2, 2:] = twins[2:, :2] = 1.5
    re_ranking(twins, twins, twins)
    rng = np.random.default_rng(0)
    seen, again = rng.normal(size=(2, 30, 16)) * 0.2 + rng.normal(size=(30, 16))
    anew = np.linalg.norm(seen[:, None] - again[None], axis=2)  # its diagonal is far from 0
    re_ranking(anew, anew, anew)

import warnings
from typing import Any

import numpy as np
import pytest
from dense_reference import RefEvaluation, ref_cuhk03, ref_evaluate_rank, ref_trapezoid
from golden_data import golden, main_case
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from murank_kernels import (
    InvalidInputError,
    RankEvaluation,
    RankEvaluator,
    evaluate_rank,
    simple_blocks,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*of pid -1:UserWarning")

MATRICES = {
    "zhong": ("main_zhong", "dist_k20_6_l30", ""),
    "muse_mu": ("main_muse_krnn", "dist_mu", ""),
    "ecn": ("main_ecn", "dist_rankdist_plain", ""),
    "simple": ("main_muse_simple", "dist_a20", ""),
    "ties": ("eval", "ties_D", "ties_"),
    "small": ("eval", "small_D", "small_"),
}
Labels = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def labels(prefix: str = "") -> Labels:
    stored = golden("eval")
    q_pid, g_pid, q_cam, g_cam = (
        stored[prefix + key] for key in ("q_pid", "g_pid", "q_cam", "g_cam")
    )
    return q_pid, g_pid, q_cam, g_cam


def matrix(name: str) -> tuple[NDArray[Any], Labels, int]:
    file, key, prefix = MATRICES[name]
    return golden(file)[key], labels(prefix), 20 if name == "ties" else 50


def check_equal(actual: RankEvaluation, desired: RefEvaluation | RankEvaluation) -> None:
    for key, value in vars(desired).items():
        assert_allclose(getattr(actual, key), value, rtol=0, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", MATRICES)
def test_golden(name: str) -> None:
    stored = golden("eval")
    distances, marks, max_rank = matrix(name)
    actual = evaluate_rank(distances, *marks, max_rank)
    assert_allclose(actual.cmc, stored[f"{name}__cmc"], rtol=0, atol=1e-7)  # stored from float32
    assert actual.num_valid == stored[f"{name}__num_valid"]
    for key in ("mAP", "mINP", "all_AP", "all_INP"):
        desired = stored[f"{name}__{key.removeprefix('all_')}"]
        assert_allclose(getattr(actual, key), desired, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MATRICES)
def test_golden_trapezoid(name: str) -> None:
    stored = golden("eval")
    distances, marks, max_rank = matrix(name)
    actual = evaluate_rank(distances, *marks, max_rank, protocol="trapezoid")
    assert_allclose(actual.all_AP, stored[f"{name}__AP_trapezoid"], rtol=0, atol=1e-10)
    assert_allclose(actual.mAP, stored[f"{name}__mAP_trapezoid_all_queries"], rtol=0, atol=1e-10)
    assert_allclose(actual.cmc, stored[f"{name}__cmc_all_queries"], rtol=0, atol=1e-7)
    check_equal(actual, ref_trapezoid(distances, *marks, max_rank))


def random_ranking(seed: int, num_gallery: int) -> tuple[NDArray[np.float32], Labels]:
    rng = np.random.default_rng(seed)
    sizes = (17, num_gallery, 17, num_gallery)
    q_pid, g_pid, q_cam, g_cam = (
        rng.integers(low, high, size)
        for low, high, size in zip((0, -1, 0, 0), (8, 8, 3, 3), sizes, strict=True)
    )
    return rng.integers(0, 9, sizes[:2]).astype(np.float32), (q_pid, g_pid, q_cam, g_cam)


@pytest.mark.parametrize("num_gallery", [7, 60, 4095, 4097])
def test_random_with_ties(num_gallery: int) -> None:
    distances, marks = random_ranking(3, num_gallery)
    check_equal(evaluate_rank(distances, *marks), ref_evaluate_rank(distances, *marks))
    check_equal(
        evaluate_rank(distances, *marks, protocol="trapezoid"), ref_trapezoid(distances, *marks)
    )


def test_infinite_distances_rank_last() -> None:
    distances = np.array([[np.inf, 1.0, np.inf, -np.inf]])
    pids, camids = np.array([0, 1, 0, 2]), np.ones(4, int)
    actual = evaluate_rank(distances, [0], pids, [0], camids)
    assert_array_equal(actual.cmc, [0, 0, 1, 1])
    assert actual.mAP == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_float64_is_not_rounded() -> None:
    distances = np.array([[1.0, 1.0 - 1e-12]])
    assert evaluate_rank(distances, [0], [1, 0], [0], [1, 1]).mAP == 1


def test_cuhk03_nears_the_mean_of_all_draws() -> None:
    distances, marks = random_ranking(8, 14)
    desired = ref_cuhk03(distances, *marks)
    actual = evaluate_rank(distances, *marks, protocol="cuhk03", num_repeats=20_000)
    assert_allclose(actual.cmc, desired.cmc, rtol=0, atol=0.01)
    assert_array_equal(actual.all_AP, evaluate_rank(distances, *marks).all_AP)


def test_cuhk03_with_one_item_a_person_is_market1501() -> None:
    rng = np.random.default_rng(2)
    marks = np.arange(20), rng.permutation(25), np.zeros(20, int), np.ones(25, int)
    distances = rng.random((20, 25))
    actual = evaluate_rank(distances, *marks, protocol="cuhk03")
    check_equal(actual, evaluate_rank(distances, *marks))


def test_cuhk03_draws_depend_on_the_seed_alone() -> None:
    distances, marks = random_ranking(4, 60)
    whole, again, other = (
        evaluate_rank(distances, *marks, protocol="cuhk03", seed=seed) for seed in (1, 1, 2)
    )
    assert_array_equal(whole.cmc, again.cmc)
    assert (whole.cmc != other.cmc).any()
    evaluator = RankEvaluator(*marks, protocol="cuhk03", seed=1)
    for start in (9, 0):
        evaluator.update(start, distances[start : start + 9])
    assert_array_equal(evaluator.result().cmc, whole.cmc)


def test_rows_in_any_order() -> None:
    distances, marks, _ = matrix("zhong")
    evaluator = RankEvaluator(*marks)
    for start in (60, 0, 30):
        evaluator.update(start, distances[start : start + 30])
    check_equal(evaluator.result(), evaluate_rank(distances, *marks))


def test_blocks() -> None:
    case = main_case()
    blocks = simple_blocks(case.features, case.num_query)
    check_equal(evaluate_rank(blocks, *labels()), evaluate_rank(blocks.dense(), *labels()))


def test_missing_rows() -> None:
    evaluator = RankEvaluator(*labels())
    evaluator.update(0, matrix("zhong")[0][:50])
    with pytest.raises(InvalidInputError, match="40 queries"):
        evaluator.result()


@pytest.mark.parametrize("protocol", ["market1501", "trapezoid", "cuhk03"])
def test_dropped_junk_was_never_there(protocol: Any) -> None:
    distances, (q_pid, g_pid, q_cam, g_cam) = random_ranking(5, 40)
    q_pid = np.where(np.arange(17) % 5 == 2, -1, q_pid)
    query, gallery = q_pid != -1, g_pid != -1
    assert 0 < gallery.sum() < 40
    actual = evaluate_rank(
        distances, q_pid, g_pid, q_cam, g_cam, protocol=protocol, junk="drop", seed=3
    )
    desired = evaluate_rank(
        distances[query][:, gallery], q_pid[query], g_pid[gallery], q_cam[query], g_cam[gallery],
        protocol=protocol, seed=3,
    )  # fmt: skip
    assert_array_equal(actual.cmc, desired.cmc)
    assert (actual.mAP, actual.mINP) == (desired.mAP, desired.mINP)
    assert actual.num_valid == desired.num_valid
    assert np.isnan(actual.all_AP[~query]).all()
    assert_array_equal(actual.all_AP[query], desired.all_AP)


def test_junk_that_counts_is_told() -> None:
    distances, marks = random_ranking(3, 60)
    count = int((marks[1] == -1).sum())
    with pytest.warns(UserWarning, match=rf"^{count} gallery items of pid -1 .*junk='drop'"):
        told = evaluate_rank(distances, *marks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = evaluate_rank(distances, *marks, junk="keep")
        dropped = evaluate_rank(distances, *marks, junk="drop")
        evaluate_rank(distances, *marks, protocol="trapezoid")  # drops them anyway
    assert kept.mAP == told.mAP < dropped.mAP


def test_nothing_but_junk() -> None:
    for junk in ("drop", "something"):
        with pytest.raises(InvalidInputError):
            evaluate_rank(np.ones((1, 2)), [1], [-1, -1], [0], [1, 1], junk=junk)  # type: ignore[arg-type]

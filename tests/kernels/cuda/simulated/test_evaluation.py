"""evaluate_rank of distances that are on the device."""

from typing import Any

import numpy as np
import pytest
from golden_data import golden
from numpy.testing import assert_allclose, assert_array_equal

from murank_kernels import (
    InvalidInputError,
    RankEvaluation,
    RankEvaluator,
    evaluate_rank,
    simple_blocks,
)
from murank_kernels.cuda.kernel import Kernel
from murank_kernels.cuda.simulated import SimulatedArray, SimulatedArrays

NAMES = ("q_pid", "g_pid", "q_cam", "g_cam")


def on_device(array: Any) -> Any:
    return np.array(array).view(SimulatedArray)


def check_equal(actual: RankEvaluation, desired: RankEvaluation) -> None:
    for key, value in vars(desired).items():
        assert_array_equal(getattr(actual, key), value, err_msg=key)


def random_labels(num_query: int, num_gallery: int) -> list[Any]:
    random = np.random.default_rng(6)
    sizes = (num_query, num_gallery, num_query, num_gallery)
    return [random.integers(0, high, size) for high, size in zip((6, 6, 3, 3), sizes, strict=True)]


@pytest.mark.parametrize(("name", "max_rank"), [("ties", 20), ("small", 50)])
def test_golden(name: str, max_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = golden("eval")
    q_pid, g_pid, q_cam, g_cam = (stored[f"{name}_{key}"] for key in NAMES)
    labels = (q_pid, g_pid, q_cam, g_cam)
    distances = stored[f"{name}_D"].astype(np.float32)
    launched: list[str] = []
    launch = SimulatedArrays.launch

    def counted(gpu: SimulatedArrays, kernel: Kernel, *arguments: Any, **settings: Any) -> None:
        launched.append(kernel.function.__name__)
        launch(gpu, kernel, *arguments, **settings)

    monkeypatch.setattr(SimulatedArrays, "launch", counted)
    actual = evaluate_rank(on_device(distances), *labels, max_rank=max_rank)
    assert launched == ["places"]
    assert actual.num_valid == stored[f"{name}__num_valid"]
    for key in ("mAP", "mINP", "all_AP", "all_INP"):
        desired = stored[f"{name}__{key.removeprefix('all_')}"]
        assert_allclose(getattr(actual, key), desired, rtol=0, atol=1e-10)
    check_equal(actual, evaluate_rank(distances, *labels, max_rank=max_rank))


@pytest.mark.parametrize("protocol", ["market1501", "cuhk03", "trapezoid"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_as_on_a_cpu(protocol: Any, dtype: Any) -> None:
    distances = np.random.default_rng(7).integers(0, 9, (8, 40)).astype(dtype)
    labels = random_labels(8, 40)
    desired = evaluate_rank(distances, *labels, protocol=protocol)
    check_equal(evaluate_rank(on_device(distances), *labels, protocol=protocol), desired)


@pytest.mark.parametrize("drop", ["same-clothes", "whole-camera", "none"])
def test_rules(drop: Any) -> None:
    distances = np.random.default_rng(7).integers(0, 9, (8, 40)).astype(np.float32)
    labels = random_labels(8, 40)
    clothes: Any = {"q_clothes": np.arange(8) % 2, "g_clothes": np.arange(40) % 2}
    desired = evaluate_rank(distances, *labels, drop=drop, **clothes)
    check_equal(evaluate_rank(on_device(distances), *labels, drop=drop, **clothes), desired)
    mask = np.random.default_rng(8).random((8, 40)) < 0.5
    desired = evaluate_rank(distances, *labels, drop=mask)
    check_equal(evaluate_rank(on_device(distances), *labels, drop=mask), desired)


def test_blocks_are_evaluated_where_they_are_made() -> None:
    features = np.random.default_rng(8).standard_normal((30, 6)).astype(np.float32)
    labels = random_labels(6, 24)
    blocks = simple_blocks(features, 6, device="cuda")
    assert all(isinstance(rows, SimulatedArray) for _, rows in blocks.where_made())
    check_equal(evaluate_rank(blocks, *labels), evaluate_rank(blocks.dense(), *labels))


def test_nan_is_refused() -> None:
    distances = np.zeros((2, 5), np.float32)
    distances[1, 3] = np.nan
    with pytest.raises(InvalidInputError, match="NaN"):
        evaluate_rank(on_device(distances), *random_labels(2, 5))


def test_labels_that_do_not_fit() -> None:
    with pytest.raises(InvalidInputError, match="distmat must have shape"):
        evaluate_rank(on_device(np.zeros((2, 6), np.float32)), *random_labels(2, 5))


def test_a_block_without_a_match() -> None:
    labels = [np.array([1, 2]), np.array([1, 1]), np.array([0, 0]), np.array([1, 1])]
    distances = np.array([[1, 2], [2, 1]], np.float32)
    evaluator = RankEvaluator(*labels)
    for query in (1, 0):
        evaluator.update(query, on_device(distances[query : query + 1]))
    assert evaluator.result().num_valid == 1

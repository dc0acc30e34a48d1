import numpy as np
import pytest
from dense_reference import ref_simple
from golden_data import check_close, golden, main_case

from murank_kernels import fuse_mu, simple


@pytest.mark.parametrize("percent", [20, 50])
def test_simple_with_mu(percent: int) -> None:
    case, desired = main_case(), golden("main_muse_simple")[f"dist_a{percent}"]
    actual = simple(case.features, case.num_query, alpha=percent / 100, **case.fusion)
    check_close(actual, desired)
    plain = ref_simple(case.features, case.num_query)
    check_close(fuse_mu(plain, case.mu, case.candidates, alpha=percent / 100), desired)


def test_simple_without_mu_is_the_euclidean_distance() -> None:
    case = main_case()
    check_close(simple(case.features, case.num_query), ref_simple(case.features, case.num_query))


def test_simple_normalises() -> None:
    case = main_case()
    stretched = case.features * np.linspace(0.1, 90, len(case.features), dtype=np.float32)[:, None]
    check_close(simple(stretched, case.num_query), ref_simple(case.features, case.num_query))


def test_simple_of_given_lengths() -> None:
    features = np.array([[3, 4], [0, 0], [3, 0]], np.float32)
    np.testing.assert_array_equal(simple(features, 1, normalize=False), [[5, 4]])


def test_fuse_by_hand() -> None:
    distances = np.array([[1.0, 0.5, 0.25], [0.75, 1.5, 2.0]])
    mu = np.array([[1.0, 0.0], [0.5, 0.25]])
    fused = fuse_mu(distances, mu, np.array([[2, 0], [1, 2]]), alpha=0.5, scale=4.0)
    np.testing.assert_array_equal(fused, [[0.5, 0.5, 2.125], [0.75, 1.75, 1.5]])


def test_fuse_leaves_its_input_alone() -> None:
    distances = np.ones((1, 2), np.float32)
    fused = fuse_mu(distances, np.zeros((1, 1)), np.array([[1]]))
    np.testing.assert_array_equal(distances, [[1, 1]])
    assert not np.shares_memory(distances, fused)


def test_alpha_ends() -> None:
    case = main_case()
    plain = np.asarray(simple(case.features, case.num_query))
    np.testing.assert_array_equal(fuse_mu(plain, case.mu, case.candidates, alpha=0), plain)
    only_mu = fuse_mu(plain, case.mu, case.candidates, alpha=1)
    np.testing.assert_array_equal(
        np.take_along_axis(only_mu, case.candidates, axis=1), 2 * np.asarray(case.mu)
    )

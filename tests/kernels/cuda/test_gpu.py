"""On a real GPU: all methods against the golden vectors, from and to both kinds of memory."""

from typing import Any

import numpy as np
import pytest
from golden_data import TOLERANCE, check_close, golden, main_case
from numpy.testing import assert_allclose, assert_array_equal

from murank_kernels import (
    DeviceUnavailableError,
    ca_jaccard,
    ecn,
    evaluate_rank,
    k_reciprocal,
    simple,
)
from murank_kernels.cuda.arrays import Arrays
from murank_kernels.cuda.gpu import this_gpu


@pytest.fixture(scope="module")
def gpu() -> Arrays:
    try:
        return this_gpu()
    except DeviceUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("key", "settings"),
    [("dist_mu", {}), ("dist_mu_k20_6_a50", {"k1": 20, "k2": 6, "alpha": 0.5})],
)
def test_k_reciprocal(key: str, settings: dict[str, Any], gpu: Arrays) -> None:
    del gpu
    case = main_case()
    actual = k_reciprocal(case.features, case.num_query, device="cuda", **case.fusion, **settings)
    check_close(actual, golden("main_muse_krnn")[key])


def test_zhong(gpu: Arrays) -> None:
    del gpu
    case = main_case()
    actual = k_reciprocal(
        case.features, case.num_query, k1=30, k2=10, lambda_value=0.5, squared=True, device="cuda"
    )
    check_close(actual, golden("main_zhong")["dist_k30_10_l50"])


@pytest.mark.parametrize("clqe", [False, True])
@pytest.mark.parametrize("ckrnns", [False, True])
def test_ca_jaccard(ckrnns: bool, clqe: bool, gpu: Arrays) -> None:
    del gpu
    case = main_case()
    actual = ca_jaccard(
        case.features, case.num_query, case.camids, ckrnns=ckrnns, clqe=clqe, device="cuda",
        **case.fusion,
    )  # fmt: skip
    check_close(actual, golden("main_caj")[f"dist_ck{ckrnns:d}_clqe{clqe:d}_mu"])


def test_ecn_and_simple(gpu: Arrays) -> None:
    del gpu
    case = main_case()
    actual = ecn(case.features, case.num_query, device="cuda", **case.fusion)
    check_close(actual, golden("main_ecn")["dist_rankdist_mu"])
    by_distances = ecn(
        case.features, case.num_query, method="origdist", device="cuda", **case.fusion
    )
    check_close(by_distances, golden("main_ecn")["dist_origdist_mu"])
    fused = simple(case.features, case.num_query, device="cuda", **case.fusion)
    check_close(fused, golden("main_muse_simple")["dist_a20"])


def test_tf32(gpu: Arrays) -> None:
    """Few lists change, and no distance but by the scale of its row."""
    del gpu
    case = main_case()
    settings: dict[str, Any] = {"device": "cuda", **case.fusion}
    plain = k_reciprocal(case.features, case.num_query, **settings)
    rounded = k_reciprocal(case.features, case.num_query, products="tf32", **settings)
    assert np.mean(np.abs(np.asarray(rounded) - np.asarray(plain)) > 2e-3) < 0.01
    best, indices = simple(case.features, case.num_query, top_k=20, products="tf32", **settings)
    desired, order = simple(case.features, case.num_query, top_k=20, **settings)
    assert np.mean(indices == order) > 0.99
    assert_allclose(best, desired, atol=1e-4)


def test_arrays_that_stay_on_the_device(gpu: Arrays) -> None:
    case, stored = main_case(), golden("eval")
    given = gpu.give(gpu.put(case.features))
    distances = simple(given, case.num_query, device="cuda", **case.fusion)
    assert hasattr(distances, "__cuda_array_interface__")
    on_host = gpu.get(distances)
    assert_allclose(on_host, golden("main_muse_simple")["dist_a20"], atol=TOLERANCE)
    best, indices = simple(given, case.num_query, top_k=20, device="cuda", **case.fusion)
    order = np.argsort(on_host, axis=1, kind="stable")[:, :20]
    assert_array_equal(gpu.get(indices), order)
    assert_array_equal(gpu.get(best), np.take_along_axis(on_host, order, axis=1))
    q_pid, g_pid, q_cam, g_cam = (stored[name] for name in ("q_pid", "g_pid", "q_cam", "g_cam"))
    actual = evaluate_rank(distances, q_pid, g_pid, q_cam, g_cam)
    assert_allclose(actual.all_AP, stored["simple__AP"], atol=1e-10)
    assert actual.num_valid == stored["simple__num_valid"]

"""device="cuda" against the golden vectors: ties, duplicates, few items, cameras, fusion."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dense_reference import ref_ca_jaccard, ref_ecn, ref_k_reciprocal
from golden_data import check_close, degenerate_case, golden, main_case, tiny_case

from murank_kernels import ca_jaccard, ecn, k_reciprocal, simple
from murank_kernels.cuda import plan
from murank_kernels.cuda.ecn_origdist import origdist_rows
from murank_kernels.cuda.prepare import prepare
from murank_kernels.fusion.fusion import Fusion
from murank_kernels.methods.ecn import expanded_neighbors
from murank_kernels.tiles.neighbors import neighbors as neighbors_on_cpu
from murank_kernels.tiles.prepare import MethodInput
from murank_kernels.tiles.prepare import prepare as prepare_on_cpu

K_RECIPROCAL: dict[str, dict[str, Any]] = {
    "zhong_k20_6": {"k1": 20, "k2": 6, "squared": True},
    "zhong_k8_3": {"k1": 8, "k2": 3, "squared": True},
    "muse_k10_5": {},
}


@pytest.mark.parametrize(
    ("key", "settings"),
    [("zhong_dist", {"squared": True}), ("muse_plain_dist", {}), ("muse_mu_dist", {"mu": True})],
)
def test_tiny(key: str, settings: dict[str, Any]) -> None:
    case = tiny_case()
    if settings.get("mu"):
        settings = case.fusion
    actual = k_reciprocal(case.features, case.num_query, k1=4, k2=2, device="cuda", **settings)
    check_close(actual, golden("tiny12")[f"{key}_k4_2_l30"])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("grid", "zhong_k8_3"),
        ("small", "zhong_k20_6"),
        ("mini", "muse_k10_5"),
        ("oneq", "muse_k10_5"),
    ],
)
def test_k_reciprocal(name: str, key: str) -> None:
    case = degenerate_case(name)
    settings = {"normalize": name != "grid", **K_RECIPROCAL[key]}
    actual = k_reciprocal(case.features, case.num_query, device="cuda", **settings)
    check_close(actual, golden("degenerate")[f"{name}_{key}"])


def test_ties_over_several_tiles(small_tiles: Callable[[int], None]) -> None:
    small_tiles(23)
    case = degenerate_case("grid")
    actual = k_reciprocal(
        case.features, case.num_query, alpha=0.25, normalize=False, device="cuda", **case.fusion
    )
    check_close(actual, golden("degenerate")["grid_muse_mu_k10_5"])


@pytest.mark.parametrize("squared", [False, True])
def test_two_images(squared: bool) -> None:
    features = np.array([[1, 0], [0, 1]], np.float32)
    actual = k_reciprocal(features, 1, squared=squared, device="cuda")
    check_close(actual, ref_k_reciprocal(features, 1, squared=squared))
    check_close(ecn(features, 1, device="cuda"), ref_ecn(features, 1))


def test_equal_images() -> None:
    case, stored = degenerate_case("ident"), golden("degenerate")
    features, q = case.features, case.num_query
    zhong = k_reciprocal(features, q, k1=20, k2=6, squared=True, device="cuda")
    check_close(zhong, ref_k_reciprocal(features, q, k1=20, k2=6, squared=True))
    check_close(k_reciprocal(features, q, device="cuda"), stored["ident_muse_k10_5"])
    assert not np.any(simple(features, q, device="cuda"))


def test_zero_rows_unless_normalised() -> None:
    features = np.zeros((9, 4), np.float32)
    features[4:, 0] = np.arange(5)
    actual = k_reciprocal(features, 3, normalize=False, device="cuda")
    check_close(actual, ref_k_reciprocal(features, 3))


@pytest.mark.parametrize(
    ("name", "some", "clqe"),
    [("grid", np.r_[0:4, 12:44], True), ("smallcam", np.r_[0:4, 10:46], False)],
)
def test_ca_jaccard(name: str, some: Any, clqe: bool) -> None:
    """Ties, and cameras of fewer images than neighbours are wanted of each."""
    case, normalize = degenerate_case(name), name != "grid"
    features, camids = case.features[some], case.camids[some]
    actual = ca_jaccard(features, 4, camids, clqe=clqe, normalize=normalize, device="cuda")
    reference = ref_ca_jaccard(features, 4, camids, clqe=clqe)
    check_close(actual, reference)


@pytest.mark.parametrize("clqe", [False, True])
def test_ca_jaccard_by_all_cameras(clqe: bool, small_tiles: Callable[[int], None]) -> None:
    small_tiles(9)
    case, some = main_case(), np.r_[0:5, 90:122]
    features, camids = case.features[some], case.camids[some]
    settings: dict[str, Any] = {"ckrnns": False, "clqe": clqe, "k1": 6}
    actual = ca_jaccard(features, 5, camids, device="cuda", **settings)
    check_close(actual, ref_ca_jaccard(features, 5, camids, **settings))


def test_k2_of_one_is_no_expansion() -> None:
    case, some = degenerate_case("grid"), np.r_[0:4, 12:40]
    features, camids = case.features[some], case.camids[some]
    actual = ca_jaccard(features, 4, camids, k2=1, normalize=False, device="cuda")
    check_close(actual, ref_ca_jaccard(features, 4, camids, k2=1))
    plain = k_reciprocal(features, 4, k2=1, normalize=False, device="cuda")
    check_close(plain, ref_k_reciprocal(features, 4, k2=1))


@pytest.mark.parametrize("name", ["small", "mini"])
def test_fewer_items_than_places(name: str) -> None:
    case = degenerate_case(name)
    features, q = case.features, case.num_query
    camids = np.arange(len(features)) % 2
    actual = ca_jaccard(features, q, camids, clqe=True, device="cuda")
    check_close(actual, ref_ca_jaccard(features, q, camids, clqe=True))
    check_close(ecn(features, q, device="cuda"), ref_ecn(features, q))


def test_ecn() -> None:
    case = tiny_case()
    actual = ecn(case.features, case.num_query, k=4, t=2, q=2, device="cuda")
    check_close(actual, golden("tiny12")["ecn_rankdist_k4_t2_q2"])


def test_ties_in_ecn() -> None:
    case, some = degenerate_case("grid"), np.r_[0:6, 12:46]
    features = case.features[some]
    settings: dict[str, Any] = {"k": 9, "t": 3, "q": 3}
    actual = ecn(features, 6, normalize=False, device="cuda", **settings)
    check_close(actual, ref_ecn(features, 6, **settings))


@pytest.mark.parametrize("rows", [7, 4096])
@pytest.mark.parametrize("fused", [False, True])
def test_ecn_by_distances(rows: int, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece, and in tiles and blocks of few rows."""
    monkeypatch.setattr(plan, "rows_beside", lambda *_: rows)
    monkeypatch.setattr(plan, "block_rows", lambda *_: rows)
    case, some = main_case(), np.r_[0:18, 90:140]
    features = case.features[some]
    fusion = {"mu": case.mu[:18, :5], "candidates": np.tile(np.arange(0, 50, 10), (18, 1))}
    settings: dict[str, Any] = {"method": "origdist", "t": 2, "q": 4} | (fusion if fused else {})
    actual = ecn(features, 18, device="cuda", **settings)
    check_close(actual, np.asarray(ecn(features, 18, **settings), np.float64))
    assert np.std(actual) > 0.01


def test_ecn_by_distances_against_golden_vectors() -> None:
    """Three queries of the main case; neighbours from the CPU: a search of 480 rows is long."""
    case, queries = main_case(), 3
    given = MethodInput(case.features, case.num_query, Fusion(**case.fusion))
    ready, on_cpu = prepare(given), prepare_on_cpu(given)
    near = neighbors_on_cpu(on_cpu.features, 9, on_cpu.changes, num_query=case.num_query).indices
    rows = np.empty((queries, ready.num_gallery), np.float32)
    ready.tile(slice(0, queries), (ready.num_query, ready.num_rows), rows)
    origdist_rows(ready, expanded_neighbors(near, 3, 8), 0, rows)
    check_close(rows, golden("main_ecn")["dist_origdist_mu"][:queries])


def test_ecn_by_distances_with_few_items() -> None:
    case = tiny_case()
    settings: dict[str, Any] = {"k": 4, "t": 2, "q": 2, "method": "origdist"}
    actual = ecn(case.features, case.num_query, device="cuda", **settings)
    check_close(actual, ref_ecn(case.features, case.num_query, **settings))
    small = degenerate_case("mini")
    actual = ecn(small.features, small.num_query, method="origdist", device="cuda")
    check_close(actual, ref_ecn(small.features, small.num_query, method="origdist"))


def test_distances_that_are_all_zero_in_ecn() -> None:
    case = degenerate_case("ident")
    assert not np.any(ecn(case.features, case.num_query, method="origdist", device="cuda"))


def test_simple() -> None:
    case, some = main_case(), np.r_[0:20, 90:150]
    mu, candidates = case.mu[:20], np.tile(np.arange(0, 60, 6), (20, 1))
    features = case.features[some]
    fusion = {"mu": mu, "candidates": candidates}
    actual = simple(features, 20, device="cuda", **fusion)
    check_close(actual, np.asarray(simple(features, 20, **fusion), np.float64))

"""Every mistake of a caller is an InvalidInputError that names the argument."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from golden_data import check_close
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from murank_kernels import (
    DeviceUnavailableError,
    InvalidInputError,
    MurankKernelsError,
    RankEvaluator,
    ca_jaccard,
    ca_jaccard_blocks,
    ecn,
    ecn_blocks,
    evaluate_rank,
    fuse_mu,
    k_reciprocal,
    k_reciprocal_blocks,
    re_ranking,
    simple,
    simple_blocks,
    smallest_k,
)

Q, G, K = 4, 8, 3
NAN, INF = float("nan"), float("inf")


def features(row: Any = None, dtype: Any = np.float32) -> NDArray[Any]:
    rows = np.random.default_rng(0).standard_normal((Q + G, 5)) * 4
    if row is not None:
        rows[7] = row
    return rows.astype(dtype)


def mu(value: float = 0.5) -> NDArray[np.float32]:
    values = np.random.default_rng(1).random((Q, K), np.float32)
    values[1, 2] = value
    return values


def candidates(value: int = 6, dtype: Any = np.int64) -> NDArray[Any]:
    values = np.tile(np.arange(K), (Q, 1))
    values[1, 2] = value
    return values.astype(dtype)


CAMIDS = np.arange(Q + G) % 3
INPUT: dict[str, Any] = {"features": features(), "num_query": Q}
CAMERA_INPUT = {**INPUT, "camids": CAMIDS}
FUSION: dict[str, Any] = {"mu": mu(), "candidates": candidates()}

METHODS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "k_reciprocal": (k_reciprocal, INPUT),
    "ca_jaccard": (ca_jaccard, CAMERA_INPUT),
    "ecn": (ecn, INPUT),
    "simple": (simple, INPUT),
    "k_reciprocal_blocks": (k_reciprocal_blocks, INPUT),
    "ca_jaccard_blocks": (ca_jaccard_blocks, CAMERA_INPUT),
    "ecn_blocks": (ecn_blocks, INPUT),
    "simple_blocks": (simple_blocks, INPUT),
}
COUNTS = {
    "k_reciprocal": ["k1", "k2"],
    "ca_jaccard": ["k1", "k2", "k1_intra", "k1_inter", "k2_intra", "k2_inter"],
    "ecn": ["k", "t", "q"],
}
NOT_COUNTS = [0, -1, 1.5, 2.0, True, "2", None]
NOT_FRACTIONS = [-0.01, 1.01, NAN, INF, "0.5", None, 1j]


def refused(call: Callable[..., Any], name: str, *args: Any, **settings: Any) -> None:
    with pytest.raises(InvalidInputError, match=rf"\b{re.escape(name)}\b"):
        call(*args, **settings)


ROWS: list[tuple[str, Any]] = [
    ("NaN", features(NAN)),
    ("infinite", features([1, INF, 0, 0, 0])),
    ("minus infinite", features([1, -INF, 0, 0, 0])),
    ("infinite and NaN", features([NAN, INF, 0, 0, 0])),
    ("zero", features(0)),
    ("int", features(dtype=np.int64)),
    ("bool", features(dtype=np.bool_)),
    ("complex", features(dtype=np.complex64)),
    ("object", features(dtype=object)),
    ("text", features(dtype=str)),
    ("one row", features()[0]),
    ("3-d", features()[None]),
    ("no rows", features()[:0]),
    ("no columns", features()[:, :0]),
    ("none", None),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [rows for _, rows in ROWS], ids=[name for name, _ in ROWS])
def test_features(method: str, rows: Any) -> None:
    call, given = METHODS[method]
    refused(call, "features", **{**given, "features": rows})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [*NOT_COUNTS, Q + G, Q + G + 1])
def test_num_query(method: str, value: Any) -> None:
    call, given = METHODS[method]
    refused(call, "num_query", **{**given, "num_query": value})


FUSIONS: list[tuple[str, str, Any]] = [
    ("mu", "NaN", mu(NAN)),
    ("mu", "below 0", mu(-0.001)),
    ("mu", "above 1", mu(1.001)),
    ("mu", "int", np.ones((Q, K), int)),
    ("mu", "complex", mu().astype(complex)),
    ("mu", "1-d", mu()[0]),
    ("mu", "too few rows", mu()[1:]),
    ("mu", "no columns", mu()[:, :0]),
    ("mu", "missing", None),
    ("candidates", "fewer columns", candidates()[:, :2]),
    ("candidates", "fewer rows", candidates()[1:]),
    ("candidates", "below 0", candidates(-1)),
    ("candidates", "not in the gallery", candidates(G)),
    ("candidates", "twice", candidates(0)),
    ("candidates", "float", candidates(dtype=float)),
    ("candidates", "bool", candidates(dtype=bool)),
    ("candidates", "missing", None),
]
BAD_FUSION = pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, _, value in FUSIONS],
    ids=[f"{name} {what}" for name, what, _ in FUSIONS],
)


@BAD_FUSION
@pytest.mark.parametrize("method", METHODS)
def test_fusion(method: str, name: str, value: Any) -> None:
    call, given = METHODS[method]
    refused(call, name, **{**given, **FUSION, name: value})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", NOT_FRACTIONS)
def test_alpha(method: str, value: Any) -> None:
    call, given = METHODS[method]
    refused(call, "alpha", **given, **FUSION, alpha=value)


@pytest.mark.parametrize("value", NOT_FRACTIONS)
@pytest.mark.parametrize("method", ["k_reciprocal", "ca_jaccard", "k_reciprocal_blocks"])
def test_lambda_value(method: str, value: Any) -> None:
    call, given = METHODS[method]
    refused(call, "lambda_value", **given, lambda_value=value)


@pytest.mark.parametrize("value", NOT_COUNTS)
@pytest.mark.parametrize("suffix", ["", "_blocks"])
@pytest.mark.parametrize(("method", "name"), [(m, name) for m in COUNTS for name in COUNTS[m]])
def test_counts(method: str, suffix: str, name: str, value: Any) -> None:
    call, given = METHODS[method + suffix]
    refused(call, name, **given, **{name: value})


@pytest.mark.parametrize("value", [*(value for value in NOT_COUNTS if value is not None), G + 1])
@pytest.mark.parametrize("method", ["k_reciprocal", "ca_jaccard", "ecn", "simple"])
def test_top_k(method: str, value: Any) -> None:
    call, given = METHODS[method]
    refused(call, "top_k", **given, top_k=value)
    blocks = METHODS[f"{method}_blocks"][0](**given)
    refused(blocks.top_k, "top_k", value)


@pytest.mark.parametrize(
    "camids", [CAMIDS[1:], CAMIDS[None], CAMIDS.astype(float), CAMIDS.astype(str), None, 3]
)
def test_camids(camids: Any) -> None:
    refused(ca_jaccard, "camids", **INPUT, camids=camids)


@pytest.mark.parametrize("value", ["rank", "", None, ["rankdist"]])
def test_ecn_method(value: Any) -> None:
    refused(ecn, "method", **INPUT, method=value)


@pytest.mark.parametrize("method", METHODS)
def test_device(method: str) -> None:
    call, given = METHODS[method]
    with pytest.raises(DeviceUnavailableError, match="cuda"):
        call(**given, device="cuda")
    for device in ("CPU", "gpu", "", None, 0):
        refused(call, "device", **given, device=device)


def test_errors_are_also_the_customary_ones() -> None:
    assert issubclass(InvalidInputError, (MurankKernelsError, ValueError))
    assert issubclass(DeviceUnavailableError, (MurankKernelsError, RuntimeError))


@BAD_FUSION
def test_fuse_mu(name: str, value: Any) -> None:
    refused(fuse_mu, name, np.ones((Q, G)), **{**FUSION, name: value})


@pytest.mark.parametrize("value", NOT_FRACTIONS)
def test_fuse_mu_alpha(value: Any) -> None:
    refused(fuse_mu, "alpha", np.ones((Q, G)), **FUSION, alpha=value)


@pytest.mark.parametrize("value", [-1, NAN, INF])
def test_fuse_mu_scale(value: float) -> None:
    refused(fuse_mu, "scale", np.ones((Q, G)), **FUSION, scale=value)


@pytest.mark.parametrize("value", [np.ones(G), np.ones((Q, 0)), np.ones((Q, G), complex), None])
def test_fuse_mu_distances(value: Any) -> None:
    refused(fuse_mu, "distances", value, **FUSION)


@pytest.mark.parametrize("value", [*NOT_COUNTS, G + 1])
def test_smallest_k(value: Any) -> None:
    refused(smallest_k, "k", np.ones((Q, G)), value)


@pytest.mark.parametrize("value", [np.ones(G), np.ones((Q, 0)), np.ones((Q, G), complex), None])
def test_smallest_k_distances(value: Any) -> None:
    refused(smallest_k, "distances", value, 1)


MATRICES = {"q_g_dist": np.ones((Q, G)), "q_q_dist": np.ones((Q, Q)), "g_g_dist": np.ones((G, G))}


def with_value(matrix: NDArray[Any], value: float) -> NDArray[Any]:
    changed = matrix.copy()
    changed[1, 2] = value
    return changed


@pytest.mark.parametrize("name", MATRICES)
def test_re_ranking_matrices(name: str) -> None:
    matrix = MATRICES[name]
    bad: list[Any] = [with_value(matrix, value) for value in (NAN, INF, -INF, 1e30)]
    bad += [matrix[0], matrix[None], matrix[:, :0], matrix.astype(complex), None]
    for value in bad:
        refused(re_ranking, name, **{**MATRICES, name: value})


@pytest.mark.parametrize("name", ["q_q_dist", "g_g_dist"])
def test_re_ranking_shapes(name: str) -> None:
    refused(re_ranking, name, **{**MATRICES, name: MATRICES[name][1:]})
    refused(re_ranking, name, **{**MATRICES, name: MATRICES[name][1:, 1:]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("k1", value) for value in NOT_COUNTS),
        *(("k2", value) for value in NOT_COUNTS),
        *(("lambda_value", value) for value in NOT_FRACTIONS),
    ],
)
def test_re_ranking_parameters(name: str, value: Any) -> None:
    refused(re_ranking, name, **MATRICES, **{name: value})


EVALUATED: dict[str, Any] = {
    "distmat": np.random.default_rng(0).random((Q, G)),
    "q_pids": np.arange(Q),
    "g_pids": np.arange(G) % Q,
    "q_camids": np.zeros(Q, int),
    "g_camids": np.ones(G, int),
}


@pytest.mark.parametrize("protocol", ["market1501", "cuhk03", "trapezoid"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distmat", EVALUATED["distmat"][1:]),
        ("distmat", EVALUATED["distmat"][:, 1:]),
        ("distmat", EVALUATED["distmat"][0]),
        ("distmat", with_value(EVALUATED["distmat"], NAN)),
        ("distmat", EVALUATED["distmat"].astype(complex)),
        ("distmat", None),
        ("q_camids", EVALUATED["q_camids"][1:]),
        ("g_camids", EVALUATED["g_camids"][1:]),
        ("q_pids", EVALUATED["q_pids"].astype(float)),
        ("g_pids", EVALUATED["g_pids"].astype(str)),
        ("q_pids", EVALUATED["q_pids"][None]),
        ("g_camids", None),
        *(("max_rank", value) for value in NOT_COUNTS),
        *(("num_repeats", value) for value in NOT_COUNTS),
    ],
)
def test_evaluate_rank(protocol: str, name: str, value: Any) -> None:
    refused(evaluate_rank, name, **{**EVALUATED, name: value}, protocol=protocol)


@pytest.mark.parametrize("side", ["q", "g"])
def test_no_items(side: str) -> None:
    nobody = {f"{side}_pids": np.empty(0, int), f"{side}_camids": np.empty(0, int)}
    refused(evaluate_rank, f"{side}_pids", **{**EVALUATED, **nobody})


@pytest.mark.parametrize("value", ["market", None])
def test_protocol(value: Any) -> None:
    refused(evaluate_rank, "protocol", **EVALUATED, protocol=value)


@pytest.mark.parametrize("value", [-1, 0.5, "1", None])
def test_seed(value: Any) -> None:
    refused(evaluate_rank, "seed", **EVALUATED, protocol="cuhk03", seed=value)


@pytest.mark.parametrize("change", [{"q_pids": np.arange(Q) + 50}, {"q_camids": np.ones(Q, int)}])
def test_no_valid_query(change: dict[str, Any]) -> None:
    refused(evaluate_rank, "no query", **{**EVALUATED, **change})


GIVEN_LABELS = {name: value for name, value in EVALUATED.items() if name != "distmat"}


@pytest.mark.parametrize(("first", "name"), [(-1, "first_query"), (1, "distmat"), (Q, "distmat")])
def test_rows_that_do_not_exist(first: int, name: str) -> None:
    refused(RankEvaluator(**GIVEN_LABELS).update, name, first, EVALUATED["distmat"])


@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("method", ["k_reciprocal", "ca_jaccard", "ecn", "simple"])
def test_inputs_are_left_alone(method: str, writeable: bool) -> None:
    call, given = METHODS[method]
    for rows in (features(), features() / np.linalg.norm(features(), axis=1, keepdims=True)):
        arguments = {**given, **FUSION, "features": rows}
        arrays = {
            name: value.copy() for name, value in arguments.items() if hasattr(value, "dtype")
        }
        for array in arrays.values():
            array.flags.writeable = writeable
        call(**{**arguments, **arrays}, normalize=False)
        call(**{**arguments, **arrays}, top_k=2)
        for name, array in arrays.items():
            assert_array_equal(array, arguments[name])


@pytest.mark.parametrize("writeable", [True, False])
def test_matrices_are_left_alone(writeable: bool) -> None:
    for dtype in (np.float32, np.float64):
        arrays: dict[str, Any] = {
            "q_g": np.random.default_rng(0).random((Q, G)).astype(dtype),
            "q_q": np.random.default_rng(1).random((Q, Q)).astype(dtype),
            "g_g": np.random.default_rng(2).random((G, G)).astype(dtype),
            **{name: value.copy() for name, value in EVALUATED.items() if name != "distmat"},
        }
        before = {name: value.copy() for name, value in arrays.items()}
        for array in arrays.values():
            array.flags.writeable = writeable
        re_ranking(arrays["q_g"], arrays["q_q"], arrays["g_g"])
        fuse_mu(arrays["q_g"], **FUSION)
        smallest_k(arrays["q_g"], 3)
        labels = (arrays[name] for name in ("q_pids", "g_pids", "q_camids", "g_camids"))
        evaluate_rank(arrays["q_g"], *labels)
        for name, array in arrays.items():
            assert_array_equal(array, before[name])


@pytest.mark.parametrize("method", ["k_reciprocal", "ca_jaccard", "ecn", "simple"])
def test_any_layout_and_width_of_the_same_numbers(method: str) -> None:
    call, given = METHODS[method]
    rows = np.round(features(), 1).astype(np.float16)
    wide = np.repeat(rows.astype(np.float32), 2, axis=1)
    desired = call(**{**given, **FUSION, "features": rows.astype(np.float32)})
    forms: list[Any] = [
        rows,
        rows.astype(np.float64),
        rows.astype(">f8"),
        np.asfortranarray(rows.astype(np.float32)),
        wide[:, ::2],
        rows.astype(np.float64).tolist(),
    ]
    for form in forms:
        fusion = {"mu": FUSION["mu"].astype(np.float64), "candidates": candidates(dtype=np.uint8)}
        actual = call(**{**given, **fusion, "features": form, "num_query": np.int64(Q)})
        check_close(actual, desired)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e39])
def test_distances_that_cannot_be_ordered(value: float) -> None:
    changed = with_value(np.ones((Q, G)), value)
    refused(smallest_k, "distances", changed, 1)
    refused(fuse_mu, "distances", changed, **FUSION)


def test_ragged_features() -> None:
    refused(simple, "features", [[1.0, 2.0], [3.0]], 1)


def test_a_query_evaluated_twice() -> None:
    evaluator = RankEvaluator(**GIVEN_LABELS)
    distances = EVALUATED["distmat"]
    evaluator.update(0, distances[:1])
    with pytest.raises(InvalidInputError, match="given before"):
        evaluator.update(0, distances[:1])
    with pytest.raises(InvalidInputError, match="first_query"):
        evaluator.update(1.0, distances[1:])  # type: ignore[arg-type]

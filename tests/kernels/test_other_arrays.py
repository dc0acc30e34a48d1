"""Tensors, columns and lists where arrays are taken; calls as other toolkits have them."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from murank_kernels import (
    InvalidInputError,
    ca_jaccard,
    ecn,
    evaluate_rank,
    k_reciprocal,
    re_ranking,
)
from murank_kernels.checks.validate import as_array, as_labels, on_device

torch: Any = pytest.importorskip("torch")
pandas: Any = pytest.importorskip("pandas")

Q, G = 6, 14
ROWS = np.random.default_rng(0).integers(-8, 8, (Q + G, 8)).astype(np.float32)  # bfloat16 has them
CAMIDS = np.arange(Q + G) % 3


@pytest.mark.parametrize(
    "form",
    [
        torch.tensor,
        lambda rows: torch.tensor(rows, requires_grad=True),
        lambda rows: torch.tensor(rows, requires_grad=True).bfloat16(),
        lambda rows: torch.tensor(rows).half(),
        pandas.DataFrame,
        lambda rows: rows.tolist(),
        lambda rows: [torch.tensor(row) for row in rows],
    ],
)
def test_features(form: Callable[[Any], Any]) -> None:
    wanted = ca_jaccard(ROWS, Q, CAMIDS)
    assert_array_equal(ca_jaccard(form(ROWS), Q, CAMIDS), wanted)


@pytest.mark.parametrize(
    "form",
    [
        torch.tensor,
        lambda ids: [*torch.tensor(ids)],
        pandas.Series,
        pandas.Index,
        lambda ids: pandas.Series(ids, dtype="Int64"),
        lambda ids: np.array(ids, object),
        list,
    ],
)
def test_labels(form: Callable[[Any], Any]) -> None:
    distances = np.random.default_rng(1).random((Q, G))
    ids = [np.arange(Q) % 4, np.arange(G) % 5, np.zeros(Q, int), np.arange(G) % 2]
    call: Any = evaluate_rank
    wanted, found = call(distances, *ids), call(torch.tensor(distances), *map(form, ids))
    assert found.mAP == wanted.mAP
    assert_array_equal(found.all_AP, wanted.all_AP)


@pytest.mark.parametrize(
    "wrong",
    [
        ["a"] * Q,
        torch.zeros(Q),
        pandas.Series([1, 2, None, 3, 4, 5], dtype="Int64"),
        np.array([1, "a", None, 3, 4, 5], object),
        torch.zeros(Q, 1, dtype=torch.int64),
        torch.zeros(Q, dtype=torch.int64).to_sparse(),
        object(),
        iter([1]),
    ],
)
def test_labels_that_are_none(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="q_pids") as told:
        evaluate_rank(np.zeros((Q, G)), wrong, np.zeros(G, int), np.zeros(Q, int), np.zeros(G, int))
    assert "built-in" not in str(told.value)


class OnDevice:
    """A tensor of PyTorch in a GPU's memory, as far as anybody looks."""

    def __init__(self, values: Any, fault: Exception | None = None) -> None:
        self._values, self._fault = values, fault

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self._fault is not None:
            raise self._fault
        return {}

    def detach(self) -> Any:
        return OnDevice(self._values)

    @property
    def dtype(self) -> Any:
        return self._values.dtype

    def cpu(self) -> Any:
        return self._values


@pytest.mark.parametrize("fault", [None, RuntimeError("requires_grad"), KeyError("bfloat16")])
def test_on_a_device(fault: Exception | None) -> None:
    given = OnDevice(torch.arange(3), fault)
    assert on_device(given)
    assert as_labels(given, "camids", 3).tolist() == [0, 1, 2]  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"features.*GPU"):
        as_array(given, "features")  # type: ignore[arg-type]


def distances(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = np.sqrt(((one[:, None] - other) ** 2).sum(axis=2))
    return found


@pytest.mark.parametrize(
    ("args", "named", "settings"),
    [
        (("qf", "gf", 4, 3, 0.5), {}, (4, 3, 0.5)),
        (("qf", "gf"), {"k1": 4, "k2": 3, "lambda_value": 0.5}, (4, 3, 0.5)),
        (("qf", "gf"), {}, (20, 6, 0.3)),
        ((), {"probFea": "qf", "galFea": "gf", "k1": 4, "k2": 3, "lambda_value": 0.5}, (4, 3, 0.5)),
        (("qf", "gf", 4, 3, 0.5), {"local_distmat": None, "only_local": False}, (4, 3, 0.5)),
    ],
)
def test_a_call_with_features_is_answered_with_ours(
    args: tuple[Any, ...], named: dict[str, Any], settings: tuple[Any, ...]
) -> None:
    """The call of the message gives what distance matrices give."""
    qf, gf = torch.tensor(ROWS[:Q]), torch.tensor(ROWS[Q:])
    known = {"qf": qf, "gf": gf}
    given = [known.get(value, value) for value in args]
    with pytest.raises(InvalidInputError) as told:
        re_ranking(*given, **{name: known.get(value, value) for name, value in named.items()})
    call = re.search(r"k_reciprocal\(.*\)", str(told.value))
    assert call is not None
    found = eval(call[0], {"k_reciprocal": k_reciprocal, "np": np, **known})  # noqa: S307
    q, g = ROWS[:Q], ROWS[Q:]
    wanted = re_ranking(distances(q, g), distances(q, q), distances(g, g), *settings)
    # Both normalise float32 squares of up to 8 * 16**2 and sum some ten weights.
    assert_allclose(found, wanted, atol=64 * float(np.finfo(np.float32).eps))


@pytest.mark.parametrize(
    ("args", "named", "word"),
    [
        ((ROWS, Q), {"k1": 10}, r"k_reciprocal\(features, num_query\)"),
        ((ROWS,), {}, "q_q_dist"),
        ((), {}, "q_q_dist"),
        (([[1.0], [1.0, 2.0]], ROWS, 4), {}, "distances"),
        ((ROWS[:Q], ROWS[Q:], 4, 3), {"local_distmat": ROWS}, "local_distmat"),
        ((ROWS[:Q], ROWS[Q:], 4, 3), {"K1": 4}, "K1"),
    ],
)
def test_other_calls(args: tuple[Any, ...], named: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        re_ranking(*args, **named)


@pytest.mark.parametrize("method", [k_reciprocal, ecn])
def test_queries_and_gallery_apart(method: Callable[..., Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"num_query=len\(qf\)"):
        method(ROWS[:Q], torch.tensor(ROWS[Q:]))

"""The nearest of a query by a byte a value: bounds that hold, and so the nearest, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murank_kernels.tiles.byte_rows import ByteQuery, ByteRows, squared_of

KINDS = ("spread", "alike", "one value", "sparse", "zero", "long")


def rows_of(kind: str, count: int, dim: int, random: np.random.Generator) -> np.ndarray:
    """Rows as encoders make them, and as they do not."""
    rows = random.standard_normal((count, dim))
    if kind == "alike":
        rows = rows[:1] + 1e-3 * rows
    if kind == "one value":
        rows = np.eye(dim)[random.integers(0, dim, count)] * rows[:, :1]
    if kind == "sparse":
        rows *= random.random((count, dim)) < 0.05
    if kind == "zero":
        rows *= random.random((count, 1)) < 0.5
    if kind == "long":
        return (rows * 10 ** random.uniform(-6, 6, (count, 1))).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def encoded(rows: np.ndarray) -> ByteRows:
    codes = ByteRows.zeros(*rows.shape)
    codes.set(np.arange(len(rows)), rows)
    return codes


def bounds(
    rows: np.ndarray, query: np.ndarray, wanted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    asked = np.ones(len(rows), bool) if wanted is None else wanted
    encoded(rows).bounds(ByteQuery.of(query), asked, low, high)
    return low, high


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    dim=st.sampled_from([1, 2, 3, 16, 100, 512, 2048]),
    seed=st.integers(0, 2**32),
)
def test_squared_distances_lie_within_their_bounds(kind: str, dim: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, queries = rows_of(kind, 40, dim, random), rows_of(kind, 3, dim, random)
    for query in (*queries, rows[7]):
        low, high = bounds(rows, query)
        exact = np.square(rows.astype(np.float64) - query).sum(axis=1)
        assert (low <= exact).all()
        assert (exact <= high).all()
        measured = np.empty(len(rows), np.float32)
        squared_of(rows, np.arange(len(rows)), query, measured)
        assert (low <= measured).all()
        assert (measured <= high).all()


def test_bounds_of_unit_rows_are_narrow() -> None:
    """A byte leaves out at most half a step a value: sqrt(D)/2 steps of the largest of D values."""
    random = np.random.default_rng(0)
    rows, query = rows_of("spread", 500, 512, random), rows_of("spread", 1, 512, random)[0]
    low, high = bounds(rows, query)
    step = np.abs(rows).max(axis=1) / 127
    left_out = np.sqrt(512) / 2 * step
    assert (high - low <= 4 * left_out * 1.05).all()


def test_rows_that_are_not_wanted_are_infinitely_far() -> None:
    random = np.random.default_rng(0)
    rows = rows_of("spread", 20, 8, random)
    low, high = bounds(rows, rows[0], np.arange(20) % 2 == 0)
    assert np.isinf(low[1::2]).all()
    assert np.isinf(high[1::2]).all()
    assert np.isfinite(high[::2]).all()


def test_a_query_of_many_values_does_not_overflow() -> None:
    rows = np.ones((2, 40_000), np.float32)
    rows[1] = -1
    low, high = bounds(rows, rows[0])
    assert low[0] <= 0 <= high[0]
    assert low[1] <= 160_000 <= high[1]


@pytest.mark.parametrize("places", [[3, 5], []])
def test_only_rows_that_changed_are_encoded(places: list[int]) -> None:
    random = np.random.default_rng(0)
    rows = rows_of("spread", 8, 16, random)
    codes, other = encoded(rows), rows_of("spread", 8, 16, random)
    codes.set(np.array(places, np.int64), other)
    expected = rows.copy()
    expected[places] = other[places]
    for one, wanted in zip(codes, encoded(expected), strict=True):
        np.testing.assert_array_equal(one, wanted)

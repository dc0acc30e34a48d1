"""Rows in memory: found exactly, whatever grows, goes and moves, and overwritten where they go."""

from __future__ import annotations

import numpy as np
import pytest

from murank.gallery import feature_blocks
from murank.gallery.feature_blocks import FeatureBlocks


@pytest.fixture(autouse=True, params=[4, 1 << 14], ids=["blocks of 4", "one block"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_blocks, "BLOCK", request.param)


def unit_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def filled(rows: np.ndarray) -> FeatureBlocks:
    blocks = FeatureBlocks(rows.shape[1])
    blocks.grow(len(rows))
    blocks.write(np.arange(len(rows)), rows)
    return blocks


def by_hand(rows: np.ndarray, query: np.ndarray, wanted: np.ndarray, most: int) -> list[int]:
    """Places, nearest first, by every distance in float64; equal rows by place."""
    exact = np.square(rows.astype(np.float64) - query).sum(axis=1)
    order = np.argsort(exact, kind="stable")
    return [int(one) for one in order if wanted[one]][:most]


@pytest.mark.parametrize("most", [1, 7, 100, 1000])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
def test_the_nearest_are_the_nearest(most: int, share: float) -> None:
    rows = unit_rows(200, 24)
    rows[50:60] = rows[0]  # ties: by place
    blocks, random = filled(rows), np.random.default_rng(1)
    for query in (rows[0], rows[3], *unit_rows(5, 24, seed=2)):
        wanted = random.random(200) < share
        places, distances = blocks.nearest(query, wanted, most)
        assert places.tolist() == by_hand(rows, query, wanted, most)
        exact = np.linalg.norm(rows[places].astype(np.float64) - query, axis=1)
        # D squares of a difference in float32, each step off by half of the last bit.
        np.testing.assert_allclose(distances, exact, rtol=26 * 2.0**-24, atol=0)


def test_rows_that_moved_together_are_found_and_nothing_is_left_behind() -> None:
    rows = unit_rows(30, 8)
    blocks = filled(rows)
    memory = list(blocks._blocks)
    kept = np.flatnonzero(np.arange(30) % 3 == 0)
    blocks.keep(kept)
    assert blocks.size == 10
    np.testing.assert_array_equal(blocks.read(np.arange(10)), rows[kept])
    places, _ = blocks.nearest(rows[9], np.ones(10, bool), 1)
    assert places.tolist() == [3]
    left = np.concatenate([block for block, _ in memory])
    assert not any((left == rows[gone]).all(axis=1).any() for gone in range(30) if gone % 3)


def test_what_is_cleared_or_replaced_by_nothing_is_overwritten() -> None:
    blocks = filled(unit_rows(10, 8))
    memory = list(blocks._blocks)
    blocks.write(np.array([2, 3]), np.zeros((1, 8), np.float32))
    for array in memory[0][1]:
        assert not array[2:4].any()
    blocks.clear()
    assert not any(rows.any() or any(one.any() for one in more) for rows, more in memory)
    assert blocks.nearest(np.ones(8, np.float32), np.zeros(0, bool), 5)[0].tolist() == []

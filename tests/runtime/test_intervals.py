"""The paired bootstrap: an interval that covers, and a sentence that claims no more than it."""

import numpy as np
import pytest

from murank.rerank.intervals import Gain, paired_gain


def test_by_hand() -> None:
    """Against the normal approximation, which so many queries meet."""
    random = np.random.default_rng(1)
    before, after = random.random(4000), random.random(4000) + 0.03
    found = paired_gain(before, after)
    gap = after - before
    assert found.mean == pytest.approx(gap.mean())
    half = 1.96 * gap.std() / np.sqrt(len(gap))
    # A quantile of 2,000 resamples is off by some 5 % of the half width.
    assert found.low == pytest.approx(gap.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(gap.mean() + half, abs=0.15 * half)
    assert paired_gain(before, after) == found


def test_queries_that_do_not_count_are_left_out() -> None:
    before = np.array([0.5, np.nan, 0.25, np.nan])
    found = paired_gain(before, before + 0.25)
    assert found == Gain(0.25, 0.25, 0.25, 2)


def test_it_covers() -> None:
    """95 of 100 intervals hold the truth: at least 88 do but once in 400."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        gap = random.standard_normal(60)
        found = paired_gain(np.zeros(60), gap)
        covered += found.low <= 0 <= found.high
    assert covered >= 88


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.01, 0.03, "better"), (-0.06, -0.02, "worse"), (-0.01, 0.02, "no")]
)
def test_verdict(low: float, high: float, word: str) -> None:
    gain = Gain((low + high) / 2, low, high, 100)
    text = gain.verdict("mu", "ca-jaccard")
    assert word in text
    assert f"{100 * low:+.1f} to {100 * high:+.1f}" in text
    assert gain.to_json()["level"] == 0.95


def test_few_queries_give_no_verdict() -> None:
    text = paired_gain(np.array([0.5]), np.array([0.6])).verdict("mu", "ecn")
    assert "better" not in text
    assert "1 queries" in text


def test_rounding_is_no_gain() -> None:
    before = np.full(50, 0.5)
    assert "better" not in paired_gain(before, np.nextafter(before, 1)).verdict("mu", "ecn")

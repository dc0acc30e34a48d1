"""LoadGen's early stopping, against sums of whole numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest

from murank.bench.early_stopping import (
    discardable,
    early_stopping,
    least_samples,
    needed,
    surely_above,
)

NINES = {0.9: Fraction(9, 10), 0.99: Fraction(99, 100), 0.5: Fraction(1, 2)}
COUNTS = [1, 2, 43, 44, 63, 64, 65, 100, 300, 458, 459, 661, 662, 838, 1500]


def at_most(late: int, count: int, share: float) -> Fraction:
    """How probable so many late answers, or fewer, are: terms of the binomial formula."""
    q = NINES[share]
    return sum(
        (math.comb(count, k) * (1 - q) ** k * q ** (count - k) for k in range(late + 1)),
        Fraction(0),
    )


@pytest.mark.parametrize("share", [0.9, 0.99])
@pytest.mark.parametrize("count", COUNTS)
def test_as_many_as_may_be_late(count: int, share: float) -> None:
    found = discardable(count, share)
    assert found >= -1
    assert at_most(found, count, share) <= Fraction(1, 100) < at_most(found + 1, count, share)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("late", [0, 1, 2, 7])
def test_the_least_count_of_so_many_late(late: int, share: float) -> None:
    found = needed(late, share)
    assert at_most(late, found, share) <= Fraction(1, 100) < at_most(late, found - 1, share)


def test_the_counts_that_mlperf_names() -> None:
    assert (least_samples(0.9), least_samples(0.99)) == (64, 662)


@pytest.mark.parametrize(
    ("count", "above"), [(63, None), (64, 1), (300, 18), (1000, 78), (10_000, 930)]
)
def test_the_estimate(count: int, above: int | None) -> None:
    """What LoadGen 6.0 discards, one less than `above`, of as many latencies, for p90."""
    values = np.random.default_rng(0).permutation(count)
    assert early_stopping(values, 0.9) == (None if above is None else count - above)


def test_many_samples_come_near_the_quantile() -> None:
    values = np.arange(2_000_000)
    found = early_stopping(values, 0.99)
    assert found is not None
    # 2.33 standard deviations of sqrt(n 0.99 0.01), the normal distribution's 99 %.
    assert found == pytest.approx(0.99 * 2e6 + 2.326 * math.sqrt(2e6 * 0.0099), abs=5)


@pytest.mark.parametrize(
    ("late", "count"), [(0, 5), (1, 1), (1, 2), (2, 2), (2, 100), (4, 100), (5, 100)]
)
def test_beyond_doubt(late: int, count: int) -> None:
    expected = late > 0 and 1 - at_most(late - 1, count, 0.99) < Fraction(1, 100)
    assert surely_above(late, count, 0.99) == expected

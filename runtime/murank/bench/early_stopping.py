"""What a number of latencies can vouch for, by the rule of MLPerf's LoadGen (early stopping).

If more than the share 1 - q of all queries were above a bound, t or fewer of n would be above it
with a probability of at most F(t; n, 1 - q), the binomial distribution. Where that is 1 % or less
(LoadGen: confidence 0.99, tolerance 0), t late answers of n still show the q-quantile to be within
the bound. The estimate of a quantile is the least bound for which that holds, with one answer above
it more than is needed: of the latencies in falling order the t-th, t as large as may be. It is at
least the plain quantile, and comes near it as n grows.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DOUBT = 0.01


def discardable(count: int, share: float) -> int:
    """Return how many of `count` may be above what the quantile is said to be; -1: not even none.

    `share` is that of the quantile, as 0.99.
    """
    below = _at_most(count, 1 - share, math.ceil(count * (1 - share)))
    return int(np.searchsorted(below, _DOUBT, side="right")) - 1


@cache
def needed(late: int, share: float) -> int:
    """Return the least count of which `late` may be above what the quantile is said to be."""
    low, high = late, late + 1  # at `low` they are too many
    while discardable(high, share) < late:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if discardable(middle, share) >= late else (middle, high)
    return high


def least_samples(share: float) -> int:
    """Return how many samples a quantile needs for an estimate: 64 for 0.9, 662 for 0.99."""
    return needed(1, share)


def early_stopping(values: NDArray[Any], share: float) -> float | None:
    """Return LoadGen's estimate of a quantile, one of the values; None: they are too few."""
    above = discardable(len(values), share)
    return None if above < 1 else float(np.sort(values)[len(values) - above])


def surely_above(late: int, count: int, share: float) -> bool:
    """Whether so many would be late in less than 1 % of all cases, if the quantile was in time."""
    return late > 0 and 1 - float(_at_most(count, 1 - share, late - 1)[-1]) < _DOUBT


def _at_most(count: int, chance: float, most: int) -> NDArray[np.float64]:
    """Return the probabilities [most + 1] of 0, 0 to 1, 0 to 2, ... in `count` trials."""
    most = min(most, count - 1)
    number = np.arange(1, most + 1)
    # Each term by the one before, as logarithms: the first would be 0 for large counts.
    grown = np.log((count - number + 1) / number) + math.log(chance) - math.log1p(-chance)
    terms = np.cumsum(np.concatenate([[count * math.log1p(-chance)], grown]))
    below: NDArray[np.float64] = np.cumsum(np.exp(terms))
    return below

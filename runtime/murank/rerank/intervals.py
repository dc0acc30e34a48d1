"""How sure a mean over queries is: the paired bootstrap."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPEATS = 2000
LEVEL = 0.95
ENOUGH = 30  # queries, for a verdict: of fewer, resamples tell little
_ROUNDING = 1e-9
_QUERIES_AT_ONCE = 2_000_000  # drawn, 16 MB


@dataclass(frozen=True)
class Gain:
    """What a step adds to a metric, with a 95 % interval over queries. Fractions, not percent."""

    mean: float
    low: float
    high: float
    num_queries: int

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {**vars(self), "level": LEVEL}

    def verdict(self, what: str, to: str, metric: str = "mAP") -> str:
        """Say in a sentence whether `what` makes `to` better, worse, or neither for certain."""
        figures = (
            f"{100 * self.mean:+.1f} {metric}, 95 % interval {100 * self.low:+.1f} to "
            f"{100 * self.high:+.1f}"
        )
        if self.num_queries < ENOUGH:
            return f"{what} and {to}: {figures}, and {self.num_queries} queries tell little"
        if self.low > _ROUNDING:
            return f"{what} makes {to} better on these images: {figures}"
        if self.high < -_ROUNDING:
            return f"{what} makes {to} worse on these images: {figures}"
        return f"{what} makes no certain difference to {to} on these images: {figures}"


def paired_gain(before: NDArray[Any], after: NDArray[Any], *, seed: int = 0) -> Gain:
    """Compare a metric of the same queries before and after, by 2,000 resamples of the queries.

    Parameters
    ----------
    before, after : [Q] float
        NaN where a query does not count, in both.
    """
    differences = np.asarray(after - before, np.float64)
    differences = differences[~np.isnan(differences)]
    count = len(differences)
    random = np.random.default_rng(seed)
    means = np.empty(REPEATS)
    some = max(1, _QUERIES_AT_ONCE // count)
    for start in range(0, REPEATS, some):
        stop = min(REPEATS, start + some)
        means[start:stop] = differences[random.integers(count, size=(stop - start, count))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Gain(float(differences.mean()), float(low), float(high), count)

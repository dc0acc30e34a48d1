"""When the first ranks of the fused order can no longer change ("simple" fusion).

A candidate at distance d that has not been seen lies in [(1-alpha) d, (1-alpha) d + 2 alpha],
whatever its mu in [0,1] turns out to be; all other distances are known.
"""

import numpy as np
from numpy.typing import NDArray

_SCALE = 2.0  # what mu = 1 counts as (murank_kernels.fuse_mu)
_ROUNDING = 1e-5  # of float32 distances: what is nearer than this counts as open


class Settling:
    """The bounds of one query.

    `candidates` [K] are the distances of the candidates, best first; `beyond` [n] those of the
    nearest gallery images that are no candidates, `first` of them or all there are.
    """

    def __init__(
        self, candidates: NDArray[np.float32], beyond: NDArray[np.float32], *, first: int,
        alpha: float,
    ) -> None:  # fmt: skip
        self._distances = candidates.astype(np.float64)
        self._beyond = beyond.astype(np.float64)
        self._first, self._alpha = first, alpha

    def __call__(self, mu: NDArray[np.float64]) -> bool:
        """Whether mu [n] of the first n candidates settles order and content of the first ranks."""
        seen = len(mu)
        kept = (1 - self._alpha) * self._distances
        fused = kept[:seen] + self._alpha * _SCALE * mu
        low = np.concatenate([fused, kept[seen:], self._beyond])
        high = np.concatenate([fused, kept[seen:] + self._alpha * _SCALE, self._beyond])
        is_open = np.zeros(len(low), bool)
        is_open[seen : len(kept)] = True
        # One that comes before all others whatever happens has the smallest upper bound.
        order = np.argsort(high, kind="stable")
        low, high, is_open = low[order], high[order], is_open[order]
        nearest = _least_after(low)
        nearest_open = _least_after(np.where(is_open, low, np.inf))
        # Known distances keep their order whatever the open ones do.
        rival = np.where(is_open, nearest, nearest_open)
        return bool((high + _ROUNDING < rival)[: self._first].all())


def _least_after(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least value behind each place; infinity behind the last."""
    least = np.minimum.accumulate(values[::-1])[::-1]
    return np.append(least[1:], np.inf)

"""Mu of pairs of images, by their content."""

import numpy as np
from numpy.typing import NDArray

PairKeys = NDArray[np.int64]


def pair_keys(queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> PairKeys:
    """Return one number a pair of numbers of images, which must be below 2^31."""
    return (queries << 32) | candidates


class KnownMu:
    """Mu of one engine in one prompt order. NaN: it was asked, and there is no answer."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)  # ascending
        self._mu = np.empty(0, np.float32)
        self._new: list[tuple[PairKeys, NDArray[np.float32]]] = []
        self.reasons: dict[int, str] = {}  # by pair key: why there is no answer

    def add(self, keys: PairKeys, mu: NDArray[np.float32]) -> None:
        """Learn mu [n] of pairs [n]; what is known already stays."""
        self._new.append((keys, mu))

    def look_up(self, keys: PairKeys) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return mu of pairs, any shape, and which of them are known (NaN where not)."""
        self._settle()
        mu = np.full(keys.shape, np.nan, np.float32)
        if not len(self._keys):
            return mu, np.zeros(keys.shape, bool)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[places] == keys
        mu[known] = self._mu[places[known]]
        return mu, known

    def __len__(self) -> int:
        self._settle()
        return len(self._keys)

    def _settle(self) -> None:
        """Sort what is new into what is old: of equal keys the first stays."""
        if not self._new:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._new)])
        mu = np.concatenate([self._mu, *(mu for _, mu in self._new)])
        self._keys, first = np.unique(keys, return_index=True)
        self._mu = mu[first]
        self._new.clear()

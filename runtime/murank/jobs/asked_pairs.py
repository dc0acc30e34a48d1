"""The pairs whose mu is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.jobs.stage import signature


@dataclass(frozen=True)
class Pairs:
    """Queries and their candidates, as images."""

    query_paths: Sequence[Path]  # [Q]
    gallery_paths: Sequence[Path]  # [G]
    candidates: NDArray[np.int64]  # [Q,K] gallery indices, nearest first
    distances: NDArray[np.float32]  # [Q,K] of the unit features, in [0,2]

    def candidate_paths(self, query: int) -> list[Path]:
        """Return the images of a query's candidates, [K]."""
        return [self.gallery_paths[i] for i in self.candidates[query]]

    def paths(self, queries: range) -> list[Path]:
        """Return each image that these queries need, once."""
        gallery = np.unique(self.candidates[queries.start : queries.stop])
        queried = [self.query_paths[query] for query in queries]
        return list(dict.fromkeys([*queried, *(self.gallery_paths[i] for i in gallery)]))

    def neutral_mu(self, queries: range) -> NDArray[np.float32]:
        """Return a new array [q,K] of the mu that leave the pairs where the encoder puts them.

        Fusion takes (1 - alpha) d + alpha 2 mu for a candidate at distance d: with mu = d / 2
        that is d, whatever alpha is. Rounding may put d a little above 2, and mu never above 1.
        """
        return np.minimum(self.distances[queries.start : queries.stop] / 2, np.float32(1))

    def signature(self, queries: range) -> list[Any]:
        """Return what changes when a pair of these queries does."""
        return [
            self.candidates[queries.start : queries.stop].tolist(),
            [self._signatures[self.query_paths[query]] for query in queries],
            [[self._signatures[path] for path in self.candidate_paths(query)] for query in queries],
        ]

    def check(self, *, strict: bool) -> None:
        """Raise InputError if no image is there at all; with `strict`, if one is not."""
        missing = [path for path, signature in self._signatures.items() if signature is None]
        if len(missing) == len(self._signatures) or (missing and strict):
            raise InputError(
                f"{missing[0]}: no such file ({len(missing)} of {len(self._signatures)} images to "
                "be scored are missing); relative paths in a features file start at --image-root"
            )

    @cached_property
    def _signatures(self) -> dict[Path, Any]:
        paths = self.paths(range(len(self.query_paths)))
        return {path: signature(path) for path in paths}

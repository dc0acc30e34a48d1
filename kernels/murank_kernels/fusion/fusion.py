"""What a pair scorer says, as a caller hands it over: one value for all methods."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from murank_kernels._types import F64, I64
from murank_kernels.checks import validate
from murank_kernels.fusion.scores import as_gallery_mu, as_mu

NamedPairs = tuple[I64, I64, F64]
"""(rows, columns, mu), each [P]: pairs of rows; one may be named from both sides."""


@dataclass(frozen=True)
class Fusion:
    """Mu and its weight, not checked yet; what they are: see `k_reciprocal`."""

    mu: Any = None  # [Q,K]
    candidates: Any = None  # [Q,K]
    alpha: float = 0.2
    gallery_mu: Any = None  # [G,M]
    gallery_candidates: Any = None  # [G,M]

    def on_host(self, to_host: Callable[[Any], Any]) -> "Fusion":
        """Bring arrays that are on a device here."""
        return replace(
            self,
            mu=to_host(self.mu),
            candidates=to_host(self.candidates),
            gallery_mu=to_host(self.gallery_mu),
            gallery_candidates=to_host(self.gallery_candidates),
        )

    def weight(self) -> float:
        """Alpha. Raises InvalidInputError."""
        return validate.as_fraction(self.alpha, "alpha")

    def named_pairs(self, num_query: int, num_gallery: int) -> NamedPairs:
        """Name the scored pairs by their rows, queries first. Raises InvalidInputError."""
        scores = as_mu(self.mu, self.candidates, num_query, num_gallery)
        inside = as_gallery_mu(self.gallery_mu, self.gallery_candidates, num_gallery)
        named: list[NamedPairs] = []
        for start, given in ((0, scores), (num_query, inside)):
            if given is not None:
                mu, candidates = given
                rows, places = np.nonzero(candidates >= 0)
                columns = num_query + candidates[rows, places]
                named.append((start + rows, columns, mu[rows, places]))
        if not named:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
        rows, columns, values = map(np.concatenate, zip(*named, strict=True))
        return rows, columns, values

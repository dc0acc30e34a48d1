"""The first step that every method shares: checked, normalised, fused input."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from murank_kernels._types import F32, I32, I64
from murank_kernels.checks import validate
from murank_kernels.fusion.fusion import Changes, fused_changes
from murank_kernels.fusion.scores import (
    NamedPairs,
    ScoredPairs,
    as_gallery_mu,
    as_mu,
    named_pairs,
)
from murank_kernels.tiles.distances import DistanceTiles, fill_squared_distances


@dataclass(frozen=True)
class Prepared:
    """Input that is known to be good."""

    features: F32  # [N,D]
    num_query: int
    changes: Changes

    @property
    def num_gallery(self) -> int:
        """G."""
        return len(self.features) - self.num_query

    def tiles(self) -> DistanceTiles:
        """What makes fused squared distances."""
        return DistanceTiles.of(self.features, self.changes)

    def pair_distances(self, rows: tuple[int, int], indptr: I64, indices: I32, out: F32) -> None:
        """Write the fused squared distance of each stored pair of these rows to `out`."""
        fill_squared_distances(self.features, rows, indptr, indices, self.changes, out)


@dataclass(frozen=True)
class Checked:
    """What the methods have in common beside features, known to be good."""

    num_query: int
    num_rows: int
    alpha: float
    pairs: NamedPairs  # scored ones


def check(
    features: Any,
    num_query: int,
    *,
    mu: ArrayLike | None,
    candidates: ArrayLike | None,
    alpha: float,
    gallery_mu: ArrayLike | None = None,
    gallery_candidates: ArrayLike | None = None,
) -> Checked:
    """Check everything but the values of the features, wherever these are."""
    alpha = validate.as_fraction(alpha, "alpha")
    num_rows = validate.num_rows(features)
    num_query = validate.as_num_query(num_query, num_rows)
    num_gallery = num_rows - num_query
    scores = as_mu(mu, candidates, num_query, num_gallery)
    gallery_scores = as_gallery_mu(gallery_mu, gallery_candidates, num_gallery)
    return Checked(num_query, num_rows, alpha, named_pairs(num_query, scores, gallery_scores))


def prepare(
    features: ArrayLike,
    num_query: int,
    *,
    mu: ArrayLike | None,
    candidates: ArrayLike | None,
    alpha: float,
    normalize: bool,
    device: str,
    gallery_mu: ArrayLike | None = None,
    gallery_candidates: ArrayLike | None = None,
) -> Prepared:
    """Check everything that the methods have in common, then normalise and fuse."""
    validate.check_device(device)
    checked = check(
        features, num_query, mu=mu, candidates=candidates, alpha=alpha, gallery_mu=gallery_mu,
        gallery_candidates=gallery_candidates,
    )  # fmt: skip
    rows = validate.as_features(features, normalize=normalize)
    pairs = ScoredPairs.of(*checked.pairs, checked.num_rows)
    return Prepared(rows, checked.num_query, fused_changes(rows, pairs, checked.alpha))

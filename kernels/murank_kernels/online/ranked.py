"""What queries of a gallery in memory have in common, whatever re-ranks them."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, F64, I32, I64
from murank_kernels.checks import validate
from murank_kernels.fusion.changes import fused_changes
from murank_kernels.fusion.scores import ScoredPairs, as_mu
from murank_kernels.tiles.lists import empty_lists
from murank_kernels.tiles.selection import SORT_ABOVE, select_rows


class Ranked(ABC):
    """What every query of a gallery in memory offers, whatever re-ranks it."""

    _squared: F32  # [G] squared distances, with mu where it is known

    def distances(self) -> F32:
        """[G] float32 Euclidean distances, with mu fused in where it is known."""
        return np.sqrt(self._squared)

    def nearest(self, k: int) -> tuple[F32, I32]:
        """The k nearest of `distances`.

        Returns (distances [k] float32, gallery indices [k] int32), best first, ties: lower index
        first. Raises InvalidInputError unless 1 <= k <= G.
        """
        k = self._as_k(k)
        return smallest(self.distances(), k)

    @abstractmethod
    def reranked(self) -> F32:
        """[G] float32 final distances."""

    def reranked_top(self, k: int) -> tuple[F32, I32]:
        """The k best of `reranked`; see `nearest`."""
        k = self._as_k(k)
        return smallest(self.reranked(), k)

    def _as_k(self, k: int) -> int:
        value = validate.as_count(k, "k")
        if value > len(self._squared):
            raise InvalidInputError(f"k is {value}, but the gallery has {len(self._squared)} items")
        return value


def as_gallery_shape(gallery: ArrayLike) -> tuple[int, int]:
    """Return [G,D] of a gallery."""
    shape = validate.as_array(gallery, "gallery").shape
    if len(shape) != 2 or 0 in shape:
        raise InvalidInputError(f"gallery must have shape [G, D], got {shape}")
    return int(shape[0]), int(shape[1])


def as_query_mu(mu: ArrayLike, candidates: ArrayLike, num_gallery: int) -> tuple[F64, I64] | None:
    """Return mu [K] of one query and its candidates [K]; None: there are none."""
    values, indices = _as_row(mu, "mu"), _as_row(candidates, "candidates")
    if len(values) == len(indices) == 0:
        return None
    scores = as_mu(values[None], indices[None], 1, num_gallery)
    assert scores is not None  # noqa: S101  both arguments are required
    (known,), (places,) = scores
    return known, places


def fused_squares(feature: F32, candidates: F32, mu: F64, alpha: float) -> F32:
    """Squared fused distances [K] of a query to candidates [K,D] of known mu [K]."""
    rows = np.concatenate([feature[None], candidates])
    pairs = ScoredPairs(np.zeros(len(mu), np.int64), np.arange(1, len(rows)), mu)
    # The query's own entries come first, in the order of the candidates.
    fused: F32 = fused_changes(rows, pairs, alpha).values[: len(mu)]
    return fused


def _as_row(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return values [K] of one query."""
    row = validate.as_array(values, name)
    if row.ndim != 1:
        raise InvalidInputError(f"{name} must have shape [K], got {row.shape}")
    return row


def as_feature(feature: ArrayLike, dim: int, *, normalize: bool) -> F32:
    """Check what the query is, then treat it as `k_reciprocal` treats a row."""
    given = validate.as_array(feature, "feature")
    if given.shape != (dim,):
        raise InvalidInputError(
            f"feature must have shape [{dim}], as the gallery's rows, got {given.shape}"
        )
    if given.dtype.kind != "f":
        raise InvalidInputError(f"feature must be floating point, got {given.dtype}")
    if not np.isfinite(given).all():
        raise InvalidInputError("feature holds NaN or an infinite value; skip that query")
    if normalize and not given.any():
        raise InvalidInputError("feature is all zero and has no direction; skip that query")
    row: F32 = validate.as_features(given[None], normalize=normalize)[0]
    return row


def smallest(row: F32, k: int) -> tuple[F32, I32]:
    """The k smallest of one row, ties: lower index first; in this thread alone."""
    if k > SORT_ABOVE:
        order = np.argsort(row, kind="stable")[:k].astype(np.int32)
        return row[order], order
    values, indices = empty_lists(1, k)
    select_rows(row[None], values, indices)
    return values[0], indices[0]

"""k-reciprocal re-ranking of one query at a time against a gallery that stays in memory."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, I32
from murank_kernels.checks import validate
from murank_kernels.fusion.fusion import fused_changes
from murank_kernels.fusion.scores import ScoredPairs, as_gallery_mu, as_mu, row_pairs
from murank_kernels.loops.parallel import Progress
from murank_kernels.online.query_rows import GalleryRows, OnlineSettings, gallery_rows, measure
from murank_kernels.online.shared_codes import rerank
from murank_kernels.tiles.neighbors import empty_lists, neighbors
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


@dataclass(frozen=True, eq=False, repr=False)
class OnlineQuery(Ranked):
    """One query against a gallery; made by `OnlineKReciprocal.query`, never changed.

    Any number of them may be alive and used from several threads. Distances: small = same person.
    """

    _rows: GalleryRows
    _settings: OnlineSettings
    _alpha: float
    _feature: F32  # [D]
    _squared: F32  # [G] squared distances, with mu where it is known

    def fused(self, mu: ArrayLike, candidates: ArrayLike) -> "OnlineQuery":
        """Fuse what a pair scorer says into the distances of some candidates: a new query.

        Parameters
        ----------
        mu : [K] float in [0,1]
            p("different person") of the query and each candidate.
        candidates : [K] int
            Their gallery indices, none twice. K may be 0.

        d' = (1-alpha) d + alpha * 2 * mu, where d is the encoder's distance. Mu of candidates that
        this query already knew stays, unless they are named again. Raises InvalidInputError.
        """
        values, indices = as_row(mu, "mu"), as_row(candidates, "candidates")
        if len(values) == len(indices) == 0:
            return self
        scores = as_mu(values[None], indices[None], 1, len(self._squared))
        assert scores is not None  # noqa: S101  both arguments are required
        (known,), (places,) = scores
        features = np.concatenate([self._feature[None], self._rows.features[places]])
        others = np.arange(1, len(features))
        pairs = ScoredPairs(np.zeros(len(others), np.int64), others, known)
        squared = self._squared.copy()
        # The query's own entries come first, in the order of the candidates.
        squared[places] = fused_changes(features, pairs, self._alpha).values[: len(others)]
        return OnlineQuery(self._rows, self._settings, self._alpha, self._feature, squared)

    def reranked(self) -> F32:
        """[G] float32 final distances: those of `k_reciprocal` for this query alone."""
        return rerank(self._rows, self._squared, self._settings)


class OnlineKReciprocal:
    """A gallery kept ready for queries that come one at a time.

    Equal to `k_reciprocal(concatenate([[feature], gallery]), 1, ...)` for each query: same final
    distances (float32 rounding apart), same order. The gallery's neighbour lists and row maxima are
    made once, in O(G² D); a query then reads the gallery once, O(G D), and works on the few rows
    whose lists or codes it touches. Safe to use from several threads.
    """

    def __init__(
        self,
        gallery: ArrayLike,
        *,
        k1: int = 10,
        k2: int = 5,
        lambda_value: float = 0.3,
        squared: bool = False,
        alpha: float = 0.2,
        normalize: bool = True,
        gallery_mu: ArrayLike | None = None,
        gallery_candidates: ArrayLike | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Find the neighbours inside the gallery.

        Parameters
        ----------
        gallery : [G,D] float16, float32 or float64
            Encoder features, G at least 1. They are copied.
        k1, k2, lambda_value, squared, alpha, normalize, gallery_mu, gallery_candidates, progress
            As in `k_reciprocal`.

        Raises
        ------
        InvalidInputError
            Before any work.
        """
        self._settings = OnlineSettings(
            validate.as_count(k1, "k1"),
            validate.as_count(k2, "k2"),
            validate.as_fraction(lambda_value, "lambda_value"),
            bool(squared),
        )
        self._alpha = validate.as_fraction(alpha, "alpha")
        self._normalize = bool(normalize)
        shape = validate.as_array(gallery, "gallery").shape
        if len(shape) != 2 or 0 in shape:
            raise InvalidInputError(f"gallery must have shape [G, D], got {shape}")
        num_gallery = validate.num_rows(gallery)
        scores = as_gallery_mu(gallery_mu, gallery_candidates, num_gallery)
        features = validate.as_features(gallery, normalize=self._normalize)
        changes = fused_changes(features, row_pairs(0, num_gallery, None, scores), self._alpha)
        near = neighbors(features, self._settings.length, changes, num_query=0, progress=progress)
        self._rows = gallery_rows(features, changes, near, self._settings)
        self.query(features[0]).reranked_top(1)  # so that no caller's query waits for a compiler

    @property
    def num_gallery(self) -> int:
        """G."""
        return len(self._rows.features)

    @property
    def dim(self) -> int:
        """D."""
        return int(self._rows.features.shape[1])

    def query(self, feature: ArrayLike) -> OnlineQuery:
        """Measure one query's distances to the gallery.

        Parameters
        ----------
        feature : [D] float16, float32 or float64

        Raises InvalidInputError: another length, NaN or infinite values, not floating point; with
        `normalize` a zero feature.
        """
        given = as_feature(feature, self.dim, normalize=self._normalize)
        squared = np.empty(self.num_gallery, np.float32)
        measure(self._rows.features, given, squared)
        return OnlineQuery(self._rows, self._settings, self._alpha, given, squared)


def as_row(values: ArrayLike, name: str) -> NDArray[Any]:
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

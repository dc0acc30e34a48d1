"""k-reciprocal re-ranking of one query at a time against a gallery that stays in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._types import F32
from murank_kernels.checks import validate
from murank_kernels.fusion.changes import fused_changes
from murank_kernels.fusion.fusion import Fusion
from murank_kernels.fusion.scores import ScoredPairs
from murank_kernels.loops.parallel import Progress
from murank_kernels.methods.settings import KReciprocalSettings
from murank_kernels.online.query_rows import GalleryRows, gallery_rows, measure
from murank_kernels.online.ranked import (
    Ranked,
    as_feature,
    as_gallery_shape,
    as_query_mu,
    fused_squares,
)
from murank_kernels.online.shared_codes import rerank
from murank_kernels.tiles.neighbors import neighbors


@dataclass(frozen=True, eq=False, repr=False)
class OnlineQuery(Ranked):
    """One query against a gallery; made by `OnlineKReciprocal.query`, never changed.

    Any number of them may be alive and used from several threads. Distances: small = same person.
    """

    _rows: GalleryRows
    _settings: KReciprocalSettings
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
        given = as_query_mu(mu, candidates, len(self._squared))
        if given is None:
            return self
        known, places = given
        squared = self._squared.copy()
        rows = self._rows.features[places]
        squared[places] = fused_squares(self._feature, rows, known, self._alpha)
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
        self._settings = KReciprocalSettings(k1, k2, lambda_value, squared).checked()
        fusion = Fusion(None, None, alpha, gallery_mu, gallery_candidates)
        self._alpha = fusion.weight()
        self._normalize = bool(normalize)
        as_gallery_shape(gallery)
        num_gallery = validate.num_rows(gallery)
        named = fusion.named_pairs(0, num_gallery)
        features = validate.as_features(gallery, normalize=self._normalize)
        changes = fused_changes(features, ScoredPairs.of(*named, num_gallery), self._alpha)
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

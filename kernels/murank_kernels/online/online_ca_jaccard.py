"""CA-Jaccard re-ranking of one query at a time, among the gallery rows nearest to it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._types import F32, F64, I64
from murank_kernels.checks import validate
from murank_kernels.codes.encoding import FLOOR
from murank_kernels.methods.ca_jaccard import ca_jaccard
from murank_kernels.methods.settings import CaJaccardSettings
from murank_kernels.online.query_rows import measure
from murank_kernels.online.ranked import (
    Ranked,
    as_feature,
    as_gallery_shape,
    as_query_mu,
    fused_squares,
    smallest,
)

SHORTLIST = 500


@dataclass(frozen=True, eq=False, repr=False)
class OnlineCameraQuery(Ranked):
    """One query of a camera; made by `OnlineCaJaccard.query`, never changed.

    Any number of them may be alive and used from several threads. Distances: small = same person.
    """

    _gallery: "OnlineCaJaccard"
    _feature: F32  # [D]
    _camid: int
    _squared: F32  # [G] squared distances, with mu where it is known
    _mu: F64  # [K] of
    _places: I64  # [K] these gallery rows

    def fused(self, mu: ArrayLike, candidates: ArrayLike) -> "OnlineCameraQuery":
        """Fuse what a pair scorer says of some candidates: a new query, as `OnlineQuery.fused`."""
        given = as_query_mu(mu, candidates, len(self._squared))
        if given is None:
            return self
        known, places = given
        kept = ~np.isin(self._places, places)
        all_mu = np.concatenate([self._mu[kept], known])
        all_places = np.concatenate([self._places[kept], places])
        squared = self._squared.copy()
        squared[places] = self._gallery.fused_squared(self._feature, known, places)
        return OnlineCameraQuery(
            self._gallery, self._feature, self._camid, squared, all_mu, all_places
        )

    def reranked(self) -> F32:
        """[G] float32 final distances.

        On the shortlist those of `ca_jaccard` for this query and these rows alone. The others come
        after it, in the order of `distances`: nothing in common, 1 or more.
        """
        return self._gallery.rerank(
            self._feature, self._camid, self._squared, self._mu, self._places
        )


class OnlineCaJaccard:
    """A gallery of known cameras kept ready for queries that come one at a time.

    For each query the `shortlist` nearest gallery rows are taken, and CA-Jaccard looks at the
    query and these alone. Nothing is worked out beforehand, so that a gallery may be of any size;
    a query reads it once, O(G D), and costs O(M² D) more. Safe to use from several threads.
    """

    def __init__(
        self,
        gallery: ArrayLike,
        camids: ArrayLike,
        *,
        shortlist: int | None = SHORTLIST,
        k1: int = 10,
        k2: int = 5,
        k1_intra: int = 5,
        k1_inter: int = 20,
        k2_intra: int = 2,
        k2_inter: int = 4,
        ckrnns: bool = True,
        clqe: bool = False,
        lambda_value: float = 0.3,
        alpha: float = 0.2,
        normalize: bool = True,
    ) -> None:
        """Keep a gallery.

        Parameters
        ----------
        gallery : [G,D] float16, float32 or float64
            Encoder features, G at least 1. They are copied.
        camids : [G] int
            Camera of each row.
        shortlist : int or None
            M. None: the whole gallery.
        k1, k2, k1_intra, k1_inter, k2_intra, k2_inter, ckrnns, clqe, lambda_value, alpha, normalize
            As in `ca_jaccard`.

        Raises
        ------
        InvalidInputError
            Before any work.
        """
        self._settings = CaJaccardSettings(
            k1, k2, k1_intra, k1_inter, k2_intra, k2_inter, ckrnns, clqe, lambda_value
        ).checked()
        self._alpha = validate.as_fraction(alpha, "alpha")
        if shortlist is not None:
            shortlist = validate.as_count(shortlist, "shortlist")
        shape = as_gallery_shape(gallery)
        given = validate.as_labels(camids, "camids", shape[0])
        self._known, self._camids = np.unique(given, return_inverse=True)  # numbered from 0
        self._features = validate.as_features(gallery, normalize=normalize)
        self._normalize = bool(normalize)
        self._length = min(shape[0], shortlist or shape[0])
        self.query(self._features[0]).reranked()  # so that no caller's query waits for a compiler

    @property
    def num_gallery(self) -> int:
        """G."""
        return len(self._features)

    @property
    def dim(self) -> int:
        """D."""
        return int(self._features.shape[1])

    def query(self, feature: ArrayLike, camid: int | None = None) -> OnlineCameraQuery:
        """Measure one query's distances to the gallery.

        Parameters
        ----------
        feature : [D] float16, float32 or float64
        camid : int or None
            Its camera. None: it is unknown, and counts as one of its own.

        Raises InvalidInputError: another length, NaN or infinite values, not floating point; with
        `normalize` a zero feature; a camera that is no whole number.
        """
        place = len(self._known)  # a camera of its own
        if camid is not None:
            camid = validate.as_count(camid, "camid", least=-(2**63))
            (found,) = np.nonzero(self._known == camid)
            place = int(found[0]) if len(found) else place
        given = as_feature(feature, self.dim, normalize=self._normalize)
        squared = np.empty(self.num_gallery, np.float32)
        measure(self._features, given, squared)
        nothing = np.empty(0), np.empty(0, np.int64)
        return OnlineCameraQuery(self, given, place, squared, *nothing)

    def fused_squared(self, feature: F32, mu: F64, places: I64) -> F32:
        """Squared fused distances [K] of a query to gallery rows with known mu; for queries."""
        return fused_squares(feature, self._features[places], mu, self._alpha)

    def rerank(self, feature: F32, camid: int, squared: F32, mu: F64, places: I64) -> F32:
        """Final distances [G] of a query; for queries."""
        _, nearest = smallest(squared, self._length)
        shortlist = np.sort(nearest)  # equal distances: lower index first, as in the whole
        given: dict[str, Any] = asdict(self._settings)
        there = np.isin(places, shortlist)
        if there.any():
            given["alpha"] = self._alpha
            given["mu"] = mu[there][None]
            given["candidates"] = np.searchsorted(shortlist, places[there])[None]
        rows = np.concatenate([feature[None], self._features[shortlist]])
        camids = np.concatenate([[camid], self._camids[shortlist]])
        found = ca_jaccard(rows, 1, camids, normalize=False, **given)
        share = np.float32(self._settings.lambda_value)
        distances = np.maximum(np.sqrt(squared), FLOOR)
        out: F32 = (1 - share) + share * (distances / distances[shortlist].max())
        out[shortlist] = np.asarray(found)[0]
        return out

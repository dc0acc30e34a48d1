"""Re-ranking of one query at a time, as `murank search` does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from photos.figures import LEVELS, Array, Score, aligned
from photos.kept import Kept

from murank import FeatureSet
from murank_kernels import OnlineCaJaccard, OnlineKReciprocal, evaluate_rank

QUERIES = 600  # drawn, where there are more
_LARGE = 1_500  # gallery images beyond which CA-Jaccard is not asked about all of them
Answer = Callable[[Array, int], Array]  # feature and camera of a query -> distances [G]


def one_query(features: FeatureSet, kept: Kept) -> dict[str, dict[str, Score]]:
    """Measure each way to answer a query, on features as they are and aligned."""
    random = np.random.default_rng(0)
    queries = np.sort(random.permutation(features.num_query)[:QUERIES])
    found: dict[str, dict[str, Score]] = {}
    for level in LEVELS:
        for name in _ways(np.empty(0), np.empty(0)):
            if name == _WHOLE and features.num_gallery > _LARGE:
                continue
            found.setdefault(name, {})[level] = kept.row(
                f"{level}: {name}", partial(_score, features, level, name, queries)
            )
    return found


_WHOLE = "CA-Jaccard, whole gallery"


def _ways(gallery: Array, camids: Array) -> Mapping[str, Callable[[], Answer]]:
    """Name each way to answer, and what makes it ready."""

    def encoder() -> Answer:
        rows = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
        return lambda feature, _camid: 1 - rows @ (feature / np.linalg.norm(feature))

    def k_reciprocal(k1: int, k2: int, *, squared: bool) -> Answer:
        online = OnlineKReciprocal(gallery, k1=k1, k2=k2, squared=squared)
        return lambda feature, _camid: online.query(feature).reranked()

    def ca_jaccard(shortlist: int | None) -> Answer:
        online = OnlineCaJaccard(gallery, camids, shortlist=shortlist)
        return lambda feature, camid: online.query(feature, camid).reranked()

    return {
        "encoder": encoder,
        "k-reciprocal (10/5)": lambda: k_reciprocal(10, 5, squared=False),
        "k-reciprocal (20/6 squared)": lambda: k_reciprocal(20, 6, squared=True),
        "CA-Jaccard, shortlist 200": lambda: ca_jaccard(200),
        "CA-Jaccard, shortlist 500": lambda: ca_jaccard(500),
        _WHOLE: lambda: ca_jaccard(None),
    }


def _score(given: FeatureSet, level: str, way: str, queries: Array) -> Score:
    features = aligned(given, level)
    labels = features.labels
    assert labels is not None
    gallery = features.gallery
    assert gallery.camids is not None
    assert labels.q_camids is not None
    answer = _ways(gallery.features, gallery.camids)[way]()
    rows, camids = features.features[queries], labels.q_camids[queries]
    distances = np.stack([answer(row, int(cam)) for row, cam in zip(rows, camids, strict=True)])
    found = evaluate_rank(distances, labels.q_pids[queries], labels.g_pids, camids, labels.g_camids)
    return 100 * found.mAP, 100 * float(found.cmc[0])

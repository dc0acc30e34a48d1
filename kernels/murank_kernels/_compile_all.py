"""Every kernel compiled for the types that callers bring, so that no query waits for a compiler."""

import warnings
from typing import Any

import numpy as np

from murank_kernels.alignment.camera_alignment import AlignmentWarning, CameraAlignment
from murank_kernels.evaluation.rank_evaluator import evaluate_rank
from murank_kernels.methods.ca_jaccard import ca_jaccard
from murank_kernels.methods.ecn import ecn
from murank_kernels.methods.k_reciprocal import k_reciprocal
from murank_kernels.methods.re_ranking import re_ranking
from murank_kernels.methods.simple import simple
from murank_kernels.online.online_k_reciprocal import OnlineKReciprocal
from murank_kernels.tiles.byte_rows import ByteQuery, ByteRows, squared_of

_NUM_QUERY, _NUM_GALLERY, _DIM = 3, 9, 4


def compile_all() -> None:
    """Run each method once with each type of features."""
    random = np.random.default_rng(0)
    features = random.standard_normal((_NUM_QUERY + _NUM_GALLERY, _DIM))
    pids, camids = np.arange(len(features)) % _NUM_QUERY, np.arange(len(features)) // _NUM_QUERY
    q = _NUM_QUERY
    queries = {"mu": np.full((q, 1), 0.5), "candidates": np.zeros((q, 1), np.int64)}
    gallery = {
        "gallery_mu": np.full((_NUM_GALLERY, 1), 0.5),
        "gallery_candidates": (np.arange(_NUM_GALLERY)[:, None] + 1) % _NUM_GALLERY,
    }
    for dtype in (np.float32, np.float64):
        _methods(features.astype(dtype), camids, {**queries, **gallery}, queries)
        matrix = np.abs(features[:q] @ features[q:].T).astype(dtype)
        evaluate_rank(matrix, pids[:q], pids[q:], camids[:q], camids[q:])


def _methods(features: Any, camids: Any, both: Any, queries: Any) -> None:
    q = _NUM_QUERY
    k_reciprocal(features, q, k1=3, k2=2, **both)
    k_reciprocal(features, q, k1=3, k2=2, top_k=2, squared=True)
    for method in ("rankdist", "origdist"):
        ecn(features, q, k=3, t=2, q=2, method=method, **both)
    ca_jaccard(features, q, camids, **both)
    ca_jaccard(features, q, camids, ckrnns=False, clqe=True)
    simple(features, q, **queries)
    gaps = np.linalg.norm(features[:, None] - features[None], axis=2)
    re_ranking(gaps[:q, q:], gaps[:q, :q], gaps[q:, q:], 3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AlignmentWarning)  # so few rows have too few pairs
        CameraAlignment.fit(features, camids, dims=2).apply(features[:q], camids[:q])
    _nearest(features.astype(np.float32))
    online = OnlineKReciprocal(features[q:], k1=3, k2=2)
    online.query(features[0]).fused([0.5], [0]).reranked_top(2)


def _nearest(rows: Any) -> None:
    codes, places = ByteRows.zeros(*rows.shape), np.arange(len(rows))
    codes.set(places, rows)
    low, high = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    codes.bounds(ByteQuery.of(rows[0]), np.ones(len(rows), bool), low, high)
    squared_of(rows, places, rows[0], low)

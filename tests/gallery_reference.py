"""The oracle for mu between gallery images: the dense reference, from a fused matrix on."""

from typing import Any

import numpy as np
from dense_reference import (
    CLIP,
    Array,
    ref_core,
    ref_distances,
    ref_encode,
    ref_expand_queries,
    ref_expanded,
    ref_fuse,
    ref_jaccard,
    ref_lists,
    ref_normalise,
    ref_reciprocal,
)


def ref_fuse_gallery(
    distances: Array, num_query: int, gallery_mu: Array, gallery_candidates: Array, alpha: float
) -> Array:
    """Fuse mu between gallery images into Euclidean distances [N,N], in place, both ways."""
    said: dict[tuple[int, int], list[float]] = {}
    for i, candidates in enumerate(gallery_candidates.tolist()):
        for place, j in enumerate(candidates):
            said.setdefault((min(i, j), max(i, j)), []).append(float(gallery_mu[i, place]))
    for (i, j), values in said.items():
        a, b = num_query + i, num_query + j
        fused = (1 - alpha) * distances[a, b] + alpha * 2 * sum(values) / len(values)
        distances[a, b] = distances[b, a] = fused
    return distances


def ref_fused(
    features: Array,
    num_query: int,
    *,
    gallery_mu: Array,
    gallery_candidates: Array,
    mu: Array | None = None,
    candidates: Array | None = None,
    alpha: float = 0.2,
) -> Array:
    """Euclidean distances [N,N] with both kinds of mu."""
    distances = ref_fuse(ref_distances(features), num_query, mu, candidates, alpha)
    return ref_fuse_gallery(distances, num_query, gallery_mu, gallery_candidates, alpha)


def k_reciprocal_of(
    fused: Array,
    num_query: int,
    *,
    k1: int = 10,
    k2: int = 5,
    lambda_value: float = 0.3,
    squared: bool = False,
) -> Array:
    given = np.square(fused) if squared else np.maximum(fused, CLIP)
    return ref_core(ref_normalise(given), num_query, k1, k2, lambda_value)


def ca_jaccard_of(
    fused: Array,
    num_query: int,
    camids: Array,
    *,
    k1: int = 10,
    k1_intra: int = 5,
    k1_inter: int = 20,
    ckrnns: bool = True,
    clqe: bool = False,
) -> Array:
    """CA-Jaccard with the method's k2 = 5, k2_intra = 2, k2_inter = 4 and lambda = 0.3."""
    nd = ref_normalise(np.maximum(fused, CLIP))
    lists = ref_lists(nd, k1 + 1)
    intra = ref_lists(nd, max(k1_intra + 1, 2), camids)
    inter = ref_lists(nd, max(k1_inter + 1, 4), camids, same_first=False)
    if ckrnns:
        own, others = ref_reciprocal(intra, k1_intra + 1), ref_reciprocal(inter, k1_inter + 1)
        sets = [np.union1d(a, b) for a, b in zip(own, others, strict=True)]
    else:
        sets = ref_expanded(lists, k1)
    averaged = np.hstack([intra[:, :2], inter[:, :4]]) if clqe else lists[:, :5]
    codes = ref_expand_queries(ref_encode(nd, sets), averaged)
    return (0.7 * ref_jaccard(codes, num_query) + 0.3 * nd[:num_query])[:, num_query:]


def ecn_of(
    fused: Array, num_query: int, *, k: int = 25, t: int = 3, q: int = 8, method: str = "rankdist"
) -> Array:
    lists = ref_lists(fused, max(k, t + 1, q + 1))
    relation: Any = fused
    if method == "rankdist":
        weights = np.zeros_like(fused)
        for i, near in enumerate(lists[:, :k]):
            weights[i, near] = k - np.arange(len(near))
        relation = -(weights @ weights.T)
    near = lists[:, 1 : t + 1]
    expanded = np.hstack([near, lists[:, 1 : q + 1][near].reshape(len(lists), -1)])
    of_query = relation[expanded[:num_query]].sum(axis=1)[:, num_query:]
    of_gallery = relation[expanded[num_query:]].sum(axis=1)[:, :num_query].T
    out: Array = (of_query + of_gallery) / (2 * expanded.shape[1])
    return np.where(out == 0, fused[:num_query, num_query:], out)

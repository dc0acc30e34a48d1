"""The oracle: re-ranking and evaluation the straightforward way, on dense N x N matrices.

Written from the published algorithms alone and sharing no code with the kernels. Plain NumPy,
stable sorts, Python loops over queries. float64 is exact enough to be the truth; float32 is the
usual practice of the field, and the baseline of benchmarks.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]
Sets: TypeAlias = list[NDArray[np.int64]]

CLIP = 1e-8  # least Euclidean distance before normalisation, in the MUSE variants
OTHER_CAMERA = 999.0  # pushes items behind all others


@dataclass(frozen=True)
class RefEvaluation:
    cmc: Array
    mAP: float  # noqa: N815
    mINP: float  # noqa: N815
    all_AP: Array  # noqa: N815
    all_INP: Array  # noqa: N815
    num_valid: int


# Distances


def ref_distances(features: Array, squared: bool = False, dtype: DTypeLike = np.float64) -> Array:
    """Distances [N,N]: float64 from differences, float32 from one product as the field does it."""
    rows = np.asarray(features, dtype)
    if rows.dtype == np.float64:
        out = np.empty((len(rows), len(rows)))
        for i, row in enumerate(rows):
            out[i] = np.square(rows - row).sum(axis=1)
    else:
        norms = np.square(rows).sum(axis=1)
        out = rows @ rows.T
        out *= -2
        out += norms[:, None]
        out += norms
        np.maximum(out, 0, out=out)
        np.fill_diagonal(out, 0)
    return out if squared else np.sqrt(out, out=out)


def ref_fuse(
    distances: Array,
    num_query: int,
    mu: Array | None,
    candidates: Array | None,
    alpha: float = 0.2,
    scale: float = 2.0,
) -> Array:
    """Fuse mu into Euclidean distances [N,N], in place, both ways."""
    if mu is None or candidates is None:
        return distances
    for query in range(num_query):
        for value, item in zip(mu[query], candidates[query], strict=True):
            g = num_query + int(item)
            fused = (1 - alpha) * distances[query, g] + alpha * scale * float(value)
            distances[query, g] = fused
    distances[num_query:, :num_query] = distances[:num_query, num_query:].T
    return distances


def ref_simple(
    features: Array,
    num_query: int,
    *,
    mu: Array | None = None,
    candidates: Array | None = None,
    alpha: float = 0.2,
    dtype: DTypeLike = np.float64,
) -> Array:
    distances = ref_distances(features, dtype=dtype)
    return ref_fuse(distances, num_query, mu, candidates, alpha)[:num_query, num_query:]


def ref_normalise(matrix: Array) -> Array:
    """Divide each column by its maximum (in place) and transpose; 0/0 is 0."""
    largest = matrix.max(axis=0)
    matrix /= np.where(largest > 0, largest, 1)
    return matrix.T


# Rankings and sets


def ref_lists(
    matrix: Array, length: int, camids: Array | None = None, *, same_first: bool = True
) -> Array:
    """First `length` of each row's ranking; with `camids` one kind of camera goes first."""
    length = min(length, len(matrix))
    out = np.empty((len(matrix), length), np.int64)
    for i, row in enumerate(matrix):
        if camids is not None:
            behind = (camids != camids[i]) == same_first
            row = row.astype(np.float64) + OTHER_CAMERA * behind
        out[i] = np.argsort(row, kind="stable")[:length]
    return out


def ref_reciprocal(lists: Array, k: int) -> Sets:
    top = lists[:, :k]
    return [np.array([j for j in top[i] if i in top[j]], np.int64) for i in range(len(top))]


def ref_expanded(lists: Array, k1: int) -> Sets:
    """k1-reciprocal sets, each united with the half-size sets that agree with it by two thirds."""
    full = ref_reciprocal(lists, k1 + 1)
    halves = ref_reciprocal(lists, int(np.around(k1 / 2)) + 1)
    out = []
    for own in full:
        grown = own
        for c in own:
            shared = np.intersect1d(halves[c], own)
            if 3 * len(shared) > 2 * len(halves[c]):
                grown = np.append(grown, halves[c])
        out.append(np.unique(grown))
    return out


# Codes and the Jaccard distance


def ref_encode(nd: Array, sets: Sets) -> Array:
    """V [N,N]: rows of exp(-nd) on each set, that sum to 1; an empty set leaves zeros."""
    codes = np.zeros(nd.shape, nd.dtype)
    for i, members in enumerate(sets):
        if len(members):
            weights = np.exp(-nd[i, members])
            codes[i, members] = weights / weights.sum()
    return codes


def ref_expand_queries(codes: Array, lists: Array) -> Array:
    out = np.empty_like(codes)
    for i, near in enumerate(lists):
        out[i] = codes[near].mean(axis=0)
    return out


def ref_jaccard(codes: Array, num_query: int) -> Array:
    """Jaccard distance [Q,N], by an inverted index of the non-zero codes."""
    holders = [np.flatnonzero(codes[:, n]) for n in range(len(codes))]
    out = np.empty((num_query, len(codes)), codes.dtype)
    for i in range(num_query):
        shared = np.zeros(len(codes), codes.dtype)
        for n in np.flatnonzero(codes[i]):
            shared[holders[n]] += np.minimum(codes[i, n], codes[holders[n], n])
        out[i] = 1 - shared / (2 - shared)
    return out


def _final(codes: Array, nd: Array, num_query: int, lambda_value: float) -> Array:
    jaccard = ref_jaccard(codes, num_query)
    return ((1 - lambda_value) * jaccard + lambda_value * nd[:num_query])[:, num_query:]


def ref_core(nd: Array, num_query: int, k1: int, k2: int, lambda_value: float) -> Array:
    lists = ref_lists(nd, max(k1 + 1, k2))
    codes = ref_encode(nd, ref_expanded(lists, k1))
    if k2 != 1:
        codes = ref_expand_queries(codes, lists[:, :k2])
    return _final(codes, nd, num_query, lambda_value)


# Methods


def ref_normalised(
    features: Array,
    num_query: int,
    *,
    squared: bool = False,
    mu: Array | None = None,
    candidates: Array | None = None,
    alpha: float = 0.2,
    dtype: DTypeLike = np.float64,
) -> Array:
    """Fused, normalised distances [N,N]: squared as Zhong et al., or clipped as MUSE."""
    distances = ref_distances(features, dtype=dtype)
    ref_fuse(distances, num_query, mu, candidates, alpha)
    if squared:
        np.square(distances, out=distances)
    else:
        np.maximum(distances, CLIP, out=distances)
    return ref_normalise(distances)


def ref_k_reciprocal(
    features: Array,
    num_query: int,
    *,
    k1: int = 10,
    k2: int = 5,
    lambda_value: float = 0.3,
    squared: bool = False,
    mu: Array | None = None,
    candidates: Array | None = None,
    alpha: float = 0.2,
    dtype: DTypeLike = np.float64,
) -> Array:
    nd = ref_normalised(
        features, num_query, squared=squared, mu=mu, candidates=candidates, alpha=alpha, dtype=dtype
    )
    return ref_core(nd, num_query, k1, k2, lambda_value)


def ref_ca_jaccard(
    features: Array,
    num_query: int,
    camids: Array,
    *,
    k1: int = 10,
    k2: int = 5,
    k1_intra: int = 5,
    k1_inter: int = 20,
    k2_intra: int = 2,
    k2_inter: int = 4,
    ckrnns: bool = True,
    clqe: bool = False,
    lambda_value: float = 0.3,
    mu: Array | None = None,
    candidates: Array | None = None,
    alpha: float = 0.2,
    dtype: DTypeLike = np.float64,
) -> Array:
    nd = ref_normalised(features, num_query, mu=mu, candidates=candidates, alpha=alpha, dtype=dtype)
    lists = ref_lists(nd, max(k1 + 1, k2))
    intra = ref_lists(nd, max(k1_intra + 1, k2_intra), camids)
    inter = ref_lists(nd, max(k1_inter + 1, k2_inter), camids, same_first=False)
    if ckrnns:
        own, others = ref_reciprocal(intra, k1_intra + 1), ref_reciprocal(inter, k1_inter + 1)
        sets = [np.union1d(a, b) for a, b in zip(own, others, strict=True)]
    else:
        sets = ref_expanded(lists, k1)
    codes = ref_encode(nd, sets)
    if clqe:
        codes = ref_expand_queries(codes, np.hstack([intra[:, :k2_intra], inter[:, :k2_inter]]))
    elif k2 != 1:
        codes = ref_expand_queries(codes, lists[:, :k2])
    return _final(codes, nd, num_query, lambda_value)


def ref_ecn(
    features: Array,
    num_query: int,
    *,
    k: int = 25,
    t: int = 3,
    q: int = 8,
    method: str = "rankdist",
    mu: Array | None = None,
    candidates: Array | None = None,
    alpha: float = 0.2,
    dtype: DTypeLike = np.float64,
) -> Array:
    distances = ref_distances(features, dtype=dtype)
    ref_fuse(distances, num_query, mu, candidates, alpha)
    lists = ref_lists(distances, max(k, t + 1, q + 1))
    if method == "rankdist":
        weights = np.zeros_like(distances)
        for i, near in enumerate(lists[:, :k]):
            weights[i, near] = k - np.arange(len(near))
        relation = -(weights @ weights.T)
        del weights
    else:
        relation = distances
    expanded = [_ecn_neighbours(lists, i, t, q) for i in range(len(lists))]
    count = 2 * len(expanded[0])
    items = np.array(expanded[num_query:])  # [G, t + t*q]
    out = np.empty((num_query, len(lists) - num_query), distances.dtype)
    for i in range(num_query):
        sums = relation[expanded[i], num_query:].sum(axis=0) + relation[items, i].sum(axis=1)
        out[i] = sums / count
    zero = out == 0
    out[zero] = distances[:num_query, num_query:][zero]
    return out


def _ecn_neighbours(lists: Array, i: int, t: int, q: int) -> Array:
    direct = lists[i, 1 : t + 1]
    return np.concatenate([direct, *(lists[n, 1 : q + 1] for n in direct)])


def ref_re_ranking(
    q_g_dist: Array,
    q_q_dist: Array,
    g_g_dist: Array,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    dtype: DTypeLike = np.float64,
) -> Array:
    given = np.block([[q_q_dist, q_g_dist], [q_g_dist.T, g_g_dist]]).astype(dtype, copy=False)
    np.square(given, out=given)
    return ref_core(ref_normalise(given), len(q_g_dist), k1, k2, lambda_value)


# Evaluation


def _kept_matches(
    row: Array, pid: int, camid: int, g_pids: Array, g_camids: Array, *, drop_junk: bool = False
) -> tuple[Array, Array]:
    """Gallery items in order, and which of them match, less those that do not count."""
    order = np.argsort(row, kind="stable")
    keep = ~((g_pids[order] == pid) & (g_camids[order] == camid))
    if drop_junk:
        keep &= g_pids[order] != -1
    order = order[keep]
    return order, g_pids[order] == pid


def _summary(ap: Array, inp: Array, cmc: Array, counted: int | None = None) -> RefEvaluation:
    valid = ~np.isnan(ap)
    counted = max(1, int(valid.sum())) if counted is None else counted
    return RefEvaluation(
        cmc[valid].sum(axis=0) / counted,
        float(ap[valid].sum() / counted),
        float(inp[valid].sum() / counted),
        ap,
        inp,
        int(valid.sum()),
    )


def _evaluate(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int,
    *,
    trapezoid: bool,
) -> RefEvaluation:
    num_query, num_gallery = distmat.shape
    ap, inp = np.full(num_query, np.nan), np.full(num_query, np.nan)
    cmc = np.zeros((num_query, min(max_rank, num_gallery)))
    for i in range(num_query):
        _, match = _kept_matches(
            distmat[i], q_pids[i], q_camids[i], g_pids, g_camids, drop_junk=trapezoid
        )
        if not match.any():
            continue
        precisions, hits = [], 0
        for place, hit in enumerate(match, 1):
            if not hit:
                continue
            before = hits / (place - 1) if place > 1 else 1.0
            hits += 1
            precisions.append((before + hits / place) / 2 if trapezoid else hits / place)
            last = place
        ap[i], inp[i] = np.mean(precisions), hits / last
        cmc[i, np.argmax(match) :] = 1
    return _summary(ap, inp, cmc, num_query if trapezoid else None)


def ref_evaluate_rank(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int = 50,
) -> RefEvaluation:
    return _evaluate(distmat, q_pids, g_pids, q_camids, g_camids, max_rank, trapezoid=False)


def ref_trapezoid(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int = 50,
) -> RefEvaluation:
    return _evaluate(distmat, q_pids, g_pids, q_camids, g_camids, max_rank, trapezoid=True)


def ref_cuhk03(
    distmat: Array,
    q_pids: Array,
    g_pids: Array,
    q_camids: Array,
    g_camids: Array,
    max_rank: int = 50,
) -> RefEvaluation:
    """Single-gallery-shot CMC, the mean over every possible draw: for tiny galleries only."""
    market = ref_evaluate_rank(distmat, q_pids, g_pids, q_camids, g_camids, max_rank)
    cmc = np.zeros((len(distmat), len(market.cmc)))
    for i in np.flatnonzero(~np.isnan(market.all_AP)):
        order, match = _kept_matches(distmat[i], q_pids[i], q_camids[i], g_pids, g_camids)
        pids = g_pids[order]
        places = [np.flatnonzero(pids == pid) for pid in np.unique(pids)]
        draws = [np.sort(draw) for draw in product(*places)]
        for draw in draws:
            cmc[i, np.argmax(match[draw]) :] += 1 / len(draws)
    return _summary(market.all_AP, market.all_INP, cmc)

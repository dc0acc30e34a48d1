"""The re-ranking methods on the GPU: the same steps as on a CPU, in the same order."""

from functools import partial
from typing import Any

import numpy as np

from murank_kernels.checks import validate
from murank_kernels.cuda import codes as device_codes
from murank_kernels.cuda import plan
from murank_kernels.cuda.arrays import DeviceArray
from murank_kernels.cuda.blocks import DeviceBlocks, Finish, PlainBlocks
from murank_kernels.cuda.ecn_origdist import origdist_rows
from murank_kernels.cuda.neighbors import neighbors
from murank_kernels.cuda.prepare import prepare, to_host
from murank_kernels.loops.parallel import Progress


def k_reciprocal_blocks(
    features: Any,
    num_query: int,
    *,
    k1: int,
    k2: int,
    lambda_value: float,
    squared: bool,
    mu: Any,
    candidates: Any,
    gallery_mu: Any,
    gallery_candidates: Any,
    alpha: float,
    normalize: bool,
    products: str,
    progress: Progress | None,
) -> DeviceBlocks:
    """k-reciprocal re-ranking."""
    num_rows = validate.num_rows(features)
    plan.check_lengths({"k1": k1, "k2": k2}, num_rows, tf32=products == "tf32")
    plan.check_expansion(k1, num_rows)
    ready = prepare(
        features, num_query, mu=mu, candidates=candidates, gallery_mu=gallery_mu,
        gallery_candidates=gallery_candidates, alpha=alpha, normalize=normalize,
        products=products,
    )  # fmt: skip
    gpu = ready.gpu

    def build(measured: DeviceArray | None) -> Finish:
        near = neighbors(ready, max(k1 + 1, k2), measured=measured, progress=progress)
        scale = device_codes.scale_of(gpu, near.row_max, squared=squared)
        codes = device_codes.encode(ready, device_codes.expanded_sets(gpu, near.indices, k1), scale)
        if k2 > 1:
            averaged = near.indices[:, :k2]
            codes = device_codes.sum_rows(gpu, codes, averaged, divisor=averaged.shape[1])
        columns = device_codes.gallery_columns(gpu, codes, ready.num_query)
        return partial(device_codes.jaccard_rows, gpu, codes, columns, scale, lambda_value)

    return DeviceBlocks(ready, build, progress)


def ca_jaccard_blocks(
    features: Any,
    num_query: int,
    camids: Any,
    *,
    k1: int,
    k2: int,
    k1_intra: int,
    k1_inter: int,
    k2_intra: int,
    k2_inter: int,
    ckrnns: bool,
    clqe: bool,
    lambda_value: float,
    mu: Any,
    candidates: Any,
    gallery_mu: Any,
    gallery_candidates: Any,
    alpha: float,
    normalize: bool,
    products: str,
    progress: Progress | None,
) -> DeviceBlocks:
    """CA-Jaccard."""
    num_rows = validate.num_rows(features)
    cameras = validate.as_labels(to_host(camids), "camids", num_rows)
    chosen = {"k1_intra": k1_intra, "k1_inter": k1_inter} if ckrnns else {"k1": k1}
    averaged = {"k2_intra": k2_intra, "k2_inter": k2_inter} if clqe else {"k2": k2}
    plan.check_lengths(chosen | averaged, num_rows, tf32=products == "tf32")
    if not ckrnns:
        plan.check_expansion(k1, num_rows)
    ready = prepare(
        features, num_query, mu=mu, candidates=candidates, gallery_mu=gallery_mu,
        gallery_candidates=gallery_candidates, alpha=alpha, normalize=normalize,
        products=products,
    )  # fmt: skip
    gpu = ready.gpu
    length = max(max(chosen.values()) + 1, *averaged.values())

    def build(measured: DeviceArray | None) -> Finish:
        _, numbers = np.unique(cameras, return_inverse=True)
        found = neighbors(
            ready, length, cameras=numbers.astype(np.int32), measured=measured, progress=progress
        )
        near = device_codes.camera_lists(gpu, found)
        scale = device_codes.scale_of(gpu, found.row_max, squared=False)
        if ckrnns:
            sets = device_codes.united_sets(gpu, near.intra, k1_intra + 1, near.inter, k1_inter + 1)
        else:
            sets = device_codes.expanded_sets(gpu, near.all, k1)
        codes = device_codes.encode(ready, sets, scale)
        if clqe:
            rows = gpu.xp.hstack([near.intra[:, :k2_intra], near.inter[:, :k2_inter]])
            codes = device_codes.sum_rows(gpu, codes, rows, divisor=rows.shape[1])
        elif k2 > 1:
            rows = near.all[:, :k2]
            codes = device_codes.sum_rows(gpu, codes, rows, divisor=rows.shape[1])
        columns = device_codes.gallery_columns(gpu, codes, ready.num_query)
        return partial(device_codes.jaccard_rows, gpu, codes, columns, scale, lambda_value)

    return DeviceBlocks(ready, build, progress)


def ecn_blocks(
    features: Any,
    num_query: int,
    *,
    k: int,
    t: int,
    q: int,
    method: str,
    mu: Any,
    candidates: Any,
    gallery_mu: Any,
    gallery_candidates: Any,
    alpha: float,
    normalize: bool,
    products: str,
    progress: Progress | None,
) -> DeviceBlocks:
    """ECN."""
    num_rows = validate.num_rows(features)
    longest = {"k": k} if method == "rankdist" else {}
    longest |= {"t": t, "q": q}
    plan.check_lengths(longest, num_rows, tf32=products == "tf32")
    ready = prepare(
        features, num_query, mu=mu, candidates=candidates, gallery_mu=gallery_mu,
        gallery_candidates=gallery_candidates, alpha=alpha, normalize=normalize,
        products=products,
    )  # fmt: skip
    gpu = ready.gpu

    def build(measured: DeviceArray | None) -> Finish:
        length = max(*longest.values(), t + 1, q + 1)
        near = neighbors(ready, length, measured=measured, progress=progress).indices
        direct = near[:, 1 : t + 1]
        indirect = near[:, 1 : q + 1][direct]
        expanded = gpu.xp.hstack([direct, indirect.reshape(len(near), -1)])
        if method == "origdist":
            return partial(origdist_rows, ready, expanded)
        lists = device_codes.rank_rows(gpu, gpu.xp.ascontiguousarray(near[:, :k]), k)
        sums = device_codes.sum_rows(gpu, lists, expanded)
        pairs = (
            (sums, device_codes.gallery_columns(gpu, lists, ready.num_query)),
            (lists, device_codes.gallery_columns(gpu, sums, ready.num_query)),
        )
        return partial(device_codes.ecn_rows, gpu, pairs, 2 * expanded.shape[1])

    return DeviceBlocks(ready, build, progress)


def simple_blocks(
    features: Any,
    num_query: int,
    *,
    mu: Any,
    candidates: Any,
    alpha: float,
    normalize: bool,
    products: str,
    progress: Progress | None,
) -> DeviceBlocks:
    """The encoder's own distances."""
    ready = prepare(
        features, num_query, mu=mu, candidates=candidates, alpha=alpha, normalize=normalize,
        products=products,
    )  # fmt: skip

    def take_roots(_first_query: int, rows: DeviceArray) -> None:
        ready.gpu.xp.sqrt(rows, out=rows)

    return PlainBlocks(ready, lambda _measured: take_roots, progress, search_measures=False)

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
from murank_kernels.methods.settings import CaJaccardSettings, EcnSettings, KReciprocalSettings
from murank_kernels.tiles.prepare import MethodInput


def k_reciprocal_blocks(given: MethodInput, settings: KReciprocalSettings) -> DeviceBlocks:
    """k-reciprocal re-ranking."""
    _check_lengths(given, {"k1": settings.k1, "k2": settings.k2})
    plan.check_expansion(settings.k1, validate.num_rows(given.features))
    ready = prepare(given)
    gpu = ready.gpu

    def build(measured: DeviceArray | None) -> Finish:
        near = neighbors(ready, settings.length, measured=measured, progress=given.progress)
        scale = device_codes.scale_of(gpu, near.row_max, squared=settings.squared)
        sets = device_codes.expanded_sets(gpu, near.indices, settings.k1)
        codes = device_codes.encode(ready, sets, scale)
        if settings.k2 > 1:
            averaged = near.indices[:, : settings.k2]
            codes = device_codes.sum_rows(gpu, codes, averaged, divisor=averaged.shape[1])
        columns = device_codes.gallery_columns(gpu, codes, ready.num_query)
        return partial(device_codes.jaccard_rows, gpu, codes, columns, scale, settings.lambda_value)

    return DeviceBlocks(ready, build, given.progress)


def ca_jaccard_blocks(given: MethodInput, camids: Any, settings: CaJaccardSettings) -> DeviceBlocks:
    """CA-Jaccard."""
    num_rows = validate.num_rows(given.features)
    cameras = validate.as_labels(to_host(camids), "camids", num_rows)
    _check_lengths(given, settings.encoded | settings.averaged)
    if not settings.ckrnns:
        plan.check_expansion(settings.k1, num_rows)
    ready = prepare(given)
    gpu = ready.gpu

    def build(measured: DeviceArray | None) -> Finish:
        _, numbers = np.unique(cameras, return_inverse=True)
        found = neighbors(
            ready, settings.length,
            cameras=numbers.astype(np.int32), measured=measured, progress=given.progress,
        )  # fmt: skip
        near = device_codes.camera_lists(gpu, found)
        scale = device_codes.scale_of(gpu, found.row_max, squared=False)
        if settings.ckrnns:
            intra, inter = settings.k1_intra + 1, settings.k1_inter + 1
            sets = device_codes.united_sets(gpu, near.intra, intra, near.inter, inter)
        else:
            sets = device_codes.expanded_sets(gpu, near.all, settings.k1)
        codes = device_codes.encode(ready, sets, scale)
        if settings.clqe or settings.k2 > 1:
            rows = near.all[:, : settings.k2]
            if settings.clqe:
                intra_rows = near.intra[:, : settings.k2_intra]
                rows = gpu.xp.hstack([intra_rows, near.inter[:, : settings.k2_inter]])
            codes = device_codes.sum_rows(gpu, codes, rows, divisor=rows.shape[1])
        columns = device_codes.gallery_columns(gpu, codes, ready.num_query)
        return partial(device_codes.jaccard_rows, gpu, codes, columns, scale, settings.lambda_value)

    return DeviceBlocks(ready, build, given.progress)


def ecn_blocks(given: MethodInput, settings: EcnSettings) -> DeviceBlocks:
    """ECN."""
    k, t, q = settings.k, settings.t, settings.q
    longest = {"k": k} if settings.method == "rankdist" else {}
    longest |= {"t": t, "q": q}
    _check_lengths(given, longest)
    ready = prepare(given)
    gpu = ready.gpu

    def build(measured: DeviceArray | None) -> Finish:
        length = max(*longest.values(), t + 1, q + 1)
        near = neighbors(ready, length, measured=measured, progress=given.progress).indices
        direct = near[:, 1 : t + 1]
        indirect = near[:, 1 : q + 1][direct]
        expanded = gpu.xp.hstack([direct, indirect.reshape(len(near), -1)])
        if settings.method == "origdist":
            return partial(origdist_rows, ready, expanded)
        lists = device_codes.rank_rows(gpu, gpu.xp.ascontiguousarray(near[:, :k]), k)
        sums = device_codes.sum_rows(gpu, lists, expanded)
        pairs = (
            (sums, device_codes.gallery_columns(gpu, lists, ready.num_query)),
            (lists, device_codes.gallery_columns(gpu, sums, ready.num_query)),
        )
        return partial(device_codes.ecn_rows, gpu, pairs, 2 * expanded.shape[1])

    return DeviceBlocks(ready, build, given.progress)


def simple_blocks(given: MethodInput) -> DeviceBlocks:
    """The encoder's own distances."""
    ready = prepare(given)

    def take_roots(_first_query: int, rows: DeviceArray) -> None:
        ready.gpu.xp.sqrt(rows, out=rows)

    return PlainBlocks(ready, lambda _measured: take_roots, given.progress, search_measures=False)


def _check_lengths(given: MethodInput, lengths: dict[str, int]) -> None:
    num_rows = validate.num_rows(given.features)
    plan.check_lengths(lengths, num_rows, tf32=given.products == "tf32")

"""Neighbour sets and sparse codes on the GPU, as CSR."""

from collections.abc import Callable

import numpy as np

from murank_kernels.codes.encoding import FLOOR, Codes, Scale
from murank_kernels.cuda.arrays import Arrays, DeviceArray
from murank_kernels.cuda.code_kernels import (
    add_rows,
    mix,
    replace,
    row_numbers,
    share,
    sort_by_index,
    weigh,
)
from murank_kernels.cuda.kernel import words
from murank_kernels.cuda.prepare import DevicePrepared
from murank_kernels.cuda.set_kernels import camera_rankings, expand, mutual, set_words, unite
from murank_kernels.tiles.camera_lists import CameraLists
from murank_kernels.tiles.neighbors import Neighbors

Sets = tuple[DeviceArray, DeviceArray]
"""(indptr [N+1] int64, indices int32, ascending within a row)."""


def scale_of(gpu: Arrays, row_max_squared: DeviceArray, *, squared: bool) -> Scale:
    """Build from the largest squared distances."""
    if squared:
        return Scale(row_max_squared, squared)
    return Scale(gpu.xp.maximum(gpu.xp.sqrt(row_max_squared), FLOOR), squared)


def _blocks_of(count: int, threads: int) -> int:
    return -(-count // threads)


def _mutual(gpu: Arrays, near: DeviceArray, k: int) -> DeviceArray:
    """Flags [N,k] int8: which of the first k neighbours are reciprocal."""
    k = min(k, near.shape[1])
    flags = gpu.xp.empty((near.shape[0], k), np.int8)
    threads = gpu.threads(128)
    gpu.launch(mutual, _blocks_of(flags.size, threads), threads, near, k, flags)
    return flags


def _indptr(gpu: Arrays, sizes: DeviceArray) -> tuple[DeviceArray, int]:
    """Row bounds from sizes [N], and the number of entries."""
    indptr = gpu.xp.zeros(len(sizes) + 1, np.int64)
    indptr[1:] = gpu.xp.cumsum(sizes)
    return indptr, int(indptr[-1])


def _two_passes(
    gpu: Arrays, num_rows: int, run: Callable[[DeviceArray, bool, DeviceArray], None]
) -> Sets:
    """Count, then write: see set_kernels."""
    sizes = gpu.xp.zeros(num_rows, np.int64)
    run(sizes, False, gpu.xp.zeros(1, np.int32))
    indptr, count = _indptr(gpu, sizes)
    indices = gpu.xp.empty(max(1, count), np.int32)
    run(indptr, True, indices)
    return indptr, indices


def expanded_sets(gpu: Arrays, near: DeviceArray, k1: int) -> Sets:
    """R*(i): reciprocal neighbours, with those of half the size that mostly agree (2/3 rule)."""
    flags, half_flags = _mutual(gpu, near, k1 + 1), _mutual(gpu, near, round(k1 / 2) + 1)
    shared = words(set_words(flags.shape[1] * (1 + half_flags.shape[1])))

    def run(indptr: DeviceArray, fill: bool, out: DeviceArray) -> None:
        gpu.launch(
            expand, len(near), gpu.threads(64), near, flags, half_flags, indptr, fill, out,
            shared_bytes=shared,
        )  # fmt: skip

    return _two_passes(gpu, len(near), run)


def united_sets(gpu: Arrays, near: DeviceArray, k: int, other: DeviceArray, other_k: int) -> Sets:
    """R*(i) of CA-Jaccard: reciprocal neighbours within the camera and across cameras."""
    flags, other_flags = _mutual(gpu, near, k), _mutual(gpu, other, other_k)
    shared = words(set_words(flags.shape[1] + other_flags.shape[1]))

    def run(indptr: DeviceArray, fill: bool, out: DeviceArray) -> None:
        gpu.launch(
            unite, len(near), gpu.threads(64), near, flags, other, other_flags, indptr, fill, out,
            shared_bytes=shared,
        )  # fmt: skip

    return _two_passes(gpu, len(near), run)


def camera_lists(gpu: Arrays, found: Neighbors) -> CameraLists:
    """Fill up each camera's list from the other, and merge both."""
    lists = CameraLists(*(gpu.xp.empty(found.indices.shape, np.int32) for _ in range(3)))
    threads = gpu.threads(64)
    gpu.launch(
        camera_rankings, _blocks_of(len(found.indices), threads), threads, found.distances,
        found.indices, found.other_distances, found.other_indices,
        lists.all, lists.intra, lists.inter,
    )  # fmt: skip
    return lists


def encode(ready: DevicePrepared, sets: Sets, scale: Scale) -> Codes:
    """V[i,j] = exp(-nd[i,j]) / sum over R*(i), for j in R*(i)."""
    gpu, (indptr, indices) = ready.gpu, sets
    data = gpu.xp.empty(len(indices), np.float32)
    ready.pair_distances(indptr, indices, data)
    threads = gpu.threads(64)
    blocks = _blocks_of(ready.num_rows, threads)
    gpu.launch(weigh, blocks, threads, indptr, data, scale.row_max, scale.squared)
    return Codes(indptr, indices, data)


def sum_rows(gpu: Arrays, codes: Codes, added: DeviceArray, *, divisor: int = 1) -> Codes:
    """Sum of the rows r in added[i] over `divisor`, for each i; columns of a row ascend."""
    added = gpu.xp.ascontiguousarray(added)
    threads = gpu.threads(32)

    def run(indptr: DeviceArray, fill: bool, indices: DeviceArray, data: DeviceArray) -> None:
        gpu.launch(
            add_rows, len(added), threads, added, np.float32(divisor), codes.indptr, codes.indices,
            codes.data, indptr, fill, indices, data, shared_bytes=words(threads),
        )  # fmt: skip

    sizes = gpu.xp.zeros(len(added), np.int64)
    run(sizes, False, gpu.xp.zeros(1, np.int32), gpu.xp.zeros(1, np.float32))
    indptr, count = _indptr(gpu, sizes)
    indices = gpu.xp.empty(max(1, count), np.int32)
    data = gpu.xp.empty(max(1, count), np.float32)
    run(indptr, True, indices, data)
    return Codes(indptr, indices, data)


def gallery_columns(gpu: Arrays, codes: Codes, num_query: int) -> Codes:
    """Inverted index: for each of the N columns, the gallery items (from 0) that hold it."""
    xp, num_rows = gpu.xp, len(codes.indptr) - 1
    low, high = int(codes.indptr[num_query]), int(codes.indptr[-1])
    if low == high:
        nothing = xp.zeros(num_rows + 1, np.int64)
        return Codes(nothing, xp.zeros(1, np.int32), xp.zeros(1, np.float32))
    rows = xp.empty(high, np.int32)
    threads = gpu.threads(64)
    gpu.launch(row_numbers, _blocks_of(num_rows, threads), threads, codes.indptr, rows)
    columns = codes.indices[low:high]
    order = xp.argsort(columns, kind="stable")
    bounds = xp.searchsorted(columns[order], xp.arange(num_rows + 1, dtype=np.int32))
    items = (rows[low:high][order] - num_query).astype(np.int32)
    return Codes(bounds.astype(np.int64), items, codes.data[low:high][order])


def rank_rows(gpu: Arrays, near: DeviceArray, k: int) -> Codes:
    """W[i,j] = k - place of j in the rank list of i."""
    num_rows, length = near.shape
    indices = gpu.xp.empty((num_rows, length), np.int32)
    data = gpu.xp.empty((num_rows, length), np.float32)
    threads = gpu.threads(128)
    blocks = _blocks_of(near.size, threads)
    gpu.launch(sort_by_index, blocks, threads, near, k, indices, data)
    indptr = gpu.xp.arange(num_rows + 1, dtype=np.int64) * length
    return Codes(indptr, indices.reshape(-1), data.reshape(-1))


def add_shared(
    gpu: Arrays,
    codes: Codes,
    columns: Codes,
    first_query: int,
    shared: DeviceArray,
    *,
    products: bool = False,
) -> None:
    """shared[r,g] += what query row r and gallery row g have in common."""
    gpu.launch(
        share, len(shared), gpu.threads(64), codes.indptr, codes.indices, codes.data,
        columns.indptr, columns.indices, columns.data, first_query, products, shared,
    )  # fmt: skip


def jaccard_rows(
    gpu: Arrays,
    codes: Codes,
    columns: Codes,
    scale: Scale,
    lambda_value: float,
    first_query: int,
    rows: DeviceArray,
) -> None:
    """Turn squared distances [b,G] into (1-lambda) Jaccard + lambda nd, in place."""
    shared = gpu.xp.zeros(rows.shape, np.float32)
    add_shared(gpu, codes, columns, first_query, shared)
    gpu.launch(
        mix, len(rows), gpu.threads(256), rows, shared, scale.row_max, first_query, scale.squared,
        np.float32(lambda_value),
    )  # fmt: skip


def ecn_rows(
    gpu: Arrays,
    pairs: tuple[tuple[Codes, Codes], ...],
    count: int,
    first_query: int,
    rows: DeviceArray,
) -> None:
    """Turn squared distances [b,G] into minus the mean agreement of rank lists, in place."""
    agreement = gpu.xp.zeros(rows.shape, np.float32)
    for own, columns in pairs:
        add_shared(gpu, own, columns, first_query, agreement, products=True)
    gpu.launch(replace, len(rows), gpu.threads(256), rows, agreement, count)

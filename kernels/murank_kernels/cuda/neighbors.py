"""Neighbour lists with row maxima on the GPU, without an N x N matrix.

A tile holds some rows and all columns from the first of these rows on. Its transpose serves the
rows below, so each distance is computed once, as on a CPU.
"""

import numpy as np

from murank_kernels._types import I32
from murank_kernels.cuda import plan
from murank_kernels.cuda.arrays import Arrays, DeviceArray
from murank_kernels.cuda.kernel import words
from murank_kernels.cuda.pair_kernels import sort_lists
from murank_kernels.cuda.prepare import DevicePrepared
from murank_kernels.cuda.tile_kernels import (
    EVERYBODY,
    OTHER_CAMERA,
    SAME_CAMERA,
    scan,
    scan_words,
    turn,
)
from murank_kernels.loops.parallel import Progress
from murank_kernels.tiles.lists import FAR, NOBODY
from murank_kernels.tiles.neighbors import Neighbors

Lists = tuple[DeviceArray, DeviceArray]
"""(squared distances, indices), [N,L]."""


def neighbors(
    ready: DevicePrepared,
    length: int,
    *,
    cameras: I32 | None = None,
    measured: DeviceArray | None = None,
    progress: Progress | None = None,
) -> Neighbors:
    """Find each row's `length` nearest rows, itself included, and its largest squared distance.

    As on a CPU; all arrays are on the device. Where the products come from rounded factors, so do
    the largest distances and the choice of who is in a list, but not the distances of the list.

    Parameters
    ----------
    cameras : [N] int32 on the host, or None
    measured : [Q,G] float32 or None: filled with fused squared distances on the way.
    """
    gpu, num_rows = ready.gpu, ready.num_rows
    wanted, kept = min(num_rows, length), min(num_rows, length + plan.slack(tf32=ready.tf32))
    rules = (EVERYBODY,) if cameras is None else (SAME_CAMERA, OTHER_CAMERA)
    labels = gpu.put(np.zeros(1, np.int32) if cameras is None else cameras)

    def search(rows: int) -> tuple[list[Lists], DeviceArray]:
        lists = [empty_lists(gpu, num_rows, kept) for _ in rules]
        row_max = gpu.xp.zeros(num_rows, np.float32)
        space, other_space = (gpu.xp.empty(rows * num_rows, np.float32) for _ in range(2))
        for start in range(0, num_rows, rows):
            stop = min(num_rows, start + rows)
            height, width = stop - start, num_rows - start
            tile = space[: height * width].reshape(height, width)
            ready.tile(slice(start, stop), (start, num_rows), tile, tf32=ready.tf32)
            if measured is not None and start < ready.num_query:
                last = min(stop, ready.num_query)
                measured[start:last] = tile[: last - start, ready.num_query - start :]
            turned = other_space[: (width - height) * height].reshape(width - height, height)
            _turn(gpu, tile, turned)
            for rule, own in zip(rules, lists, strict=True):
                offer(gpu, tile, (start, start), own, (labels, rule), row_max)
                if stop < num_rows:
                    offer(gpu, turned, (stop, start), own, (labels, rule), row_max)
            if progress is not None:
                progress("neighbours", stop, num_rows)
        return lists, row_max

    rows = plan.tile_rows(gpu.free_bytes(), num_rows, kept, len(rules))
    lists, row_max = plan.with_smaller_tiles(gpu, rows, search)
    for own in lists:
        _refine(ready, *own)
    first = [gpu.xp.ascontiguousarray(array[:, :wanted]) for own in lists for array in own]
    near, who, other_near, other_who = first if cameras is not None else [*first, None, None]
    return Neighbors(who, other_who, row_max, near, other_near)


def _turn(gpu: Arrays, tile: DeviceArray, out: DeviceArray) -> None:
    """Transpose the last columns of a tile, as many as `out` has rows."""
    if not len(out):
        return
    side = gpu.lanes
    height, width = tile.shape
    blocks = -(-height // side) * -(-len(out) // side)
    gpu.launch(
        turn, blocks, gpu.threads(256), tile, width - len(out), side, out,
        shared_bytes=words(side * (side + 1)),
    )  # fmt: skip


def turned(gpu: Arrays, tile: DeviceArray) -> DeviceArray:
    """Transpose a tile."""
    out = gpu.xp.empty(tile.shape[::-1], np.float32)
    _turn(gpu, tile, out)
    return out


def empty_lists(gpu: Arrays, num_rows: int, length: int) -> Lists:
    """Lists that nothing has entered yet."""
    return (
        gpu.xp.full((num_rows, length), FAR, np.float32),
        gpu.xp.full((num_rows, length), NOBODY, np.int32),
    )


def offer(
    gpu: Arrays,
    tile: DeviceArray,
    corner: tuple[int, int],
    lists: Lists,
    cameras: tuple[DeviceArray, int],
    row_max: DeviceArray | None = None,
) -> None:
    """Offer a tile [b,w], whose corner is at (row, column), to the lists of its rows."""
    threads = gpu.threads(128)
    measure = row_max is not None
    gpu.launch(
        scan, tile.shape[0], threads, tile, *corner, *cameras, *lists, measure,
        row_max if measure else gpu.xp.zeros(1, np.float32),
        shared_bytes=words(scan_words(lists[0].shape[1], threads)),
    )  # fmt: skip


def _refine(
    ready: DevicePrepared, distances: DeviceArray, indices: DeviceArray, first_row: int = 0
) -> None:
    """Sort the lists of some rows again by distances taken from differences, in place."""
    xp = ready.gpu.xp
    num_rows, length = indices.shape
    rows = xp.arange(ready.num_rows + 1, dtype=np.int64)
    indptr = xp.clip(rows - first_row, 0, num_rows) * length
    nobody = indices == NOBODY
    flat = xp.where(nobody, np.int32(0), indices).astype(np.int32).reshape(-1)
    ready.pair_distances(indptr, flat, distances.reshape(-1))
    distances[nobody] = FAR
    threads = ready.gpu.threads(64)
    ready.gpu.launch(sort_lists, -(-num_rows // threads), threads, distances, indices)


def nearest_in_gallery(ready: DevicePrepared, first_query: int, rows: DeviceArray, k: int) -> Lists:
    """The k nearest gallery items of some queries: (squared distances [b,k], indices [b,k]).

    `rows` [b,G] hold squared distances that only choose who is compared: those of `k` and the
    slack. The distances are taken from differences. Ties: lower index first.
    """
    length = min(ready.num_gallery, k + plan.slack(tf32=ready.tf32))
    distances, indices = smallest(ready.gpu, rows, length)
    indices += np.int32(ready.num_query)
    _refine(ready, distances, indices, first_query)
    first = ready.gpu.xp.ascontiguousarray
    return first(distances[:, :k]), first(indices[:, :k] - np.int32(ready.num_query))


def smallest(gpu: Arrays, rows: DeviceArray, k: int) -> Lists:
    """The k smallest entries of each row [b,G]: (values, indices), ties: lower index first."""
    if k > plan.LONGEST:
        order = gpu.xp.argsort(rows, axis=1, kind="stable")[:, :k]
        return gpu.xp.take_along_axis(rows, order, axis=1), order.astype(np.int32)
    lists = empty_lists(gpu, len(rows), k)
    offer(gpu, rows, (0, 0), lists, (gpu.xp.zeros(1, np.int32), EVERYBODY))
    return lists

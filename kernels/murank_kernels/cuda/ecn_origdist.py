"""ECN with Euclidean distances: dense by definition, so made from tiles, some queries at a time."""

import numpy as np

from murank_kernels.cuda import plan
from murank_kernels.cuda.arrays import DeviceArray
from murank_kernels.cuda.code_kernels import replace
from murank_kernels.cuda.prepare import DevicePrepared
from murank_kernels.cuda.sum_kernels import add_gathered, add_members
from murank_kernels.loops.parallel import row_ranges


def origdist_rows(
    ready: DevicePrepared, expanded: DeviceArray, first_query: int, rows: DeviceArray
) -> None:
    """Turn squared distances [b,G] into mean distances to expanded neighbours, in place.

    Parameters
    ----------
    expanded : [N,m] int32 expanded neighbours, with repeats
    """
    gpu, xp = ready.gpu, ready.gpu.xp
    sums = xp.zeros(rows.shape, np.float32)
    own = xp.ascontiguousarray(expanded[first_query : first_query + len(rows)])
    members, places = xp.unique(own, return_inverse=True)
    members = members.astype(np.int64)
    places = xp.ascontiguousarray(places.reshape(own.shape).astype(np.int32))
    height = plan.rows_beside(gpu.free_bytes(), ready.num_rows)
    threads = gpu.threads(256)
    gallery, everybody = (ready.num_query, ready.num_rows), (0, ready.num_rows)
    for start, stop in row_ranges(len(members), height):
        tile = xp.empty((stop - start, ready.num_gallery), np.float32)
        ready.tile(members[start:stop], gallery, tile)
        gpu.launch(add_members, len(rows), threads, tile, places, start, sums)
    for start, stop in row_ranges(len(rows), height):
        tile = xp.empty((stop - start, ready.num_rows), np.float32)
        ready.tile(slice(first_query + start, first_query + stop), everybody, tile)
        xp.sqrt(tile, out=tile)
        some = sums[start:stop]
        gpu.launch(add_gathered, stop - start, threads, tile, expanded, ready.num_query, some)
    gpu.launch(replace, len(rows), threads, rows, sums, -2 * expanded.shape[1])

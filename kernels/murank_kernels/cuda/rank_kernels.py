"""The kernel of evaluation: where a query's matches stand in its ranking."""

from numba import int32

from murank_kernels._types import F32, I32, I64
from murank_kernels.cuda.kernel import cuda, device_function, kernel


@device_function
def _stands_before(rows: F32, r: int, g: int, m: int) -> bool:
    return rows[r, g] < rows[r, m] or (rows[r, g] == rows[r, m] and g < m)


@kernel("void(f4[:,::1], i8[::1], i8[::1], i8[::1], i8[::1], i8[::1])")
def places(rows: F32, queries: I64, matches: I64, drop_indptr: I64, dropped: I64, out: I64) -> None:
    """Place of each match among the gallery less what is dropped. A block a match.

    Places count from 1; dropped[drop_indptr[r]:drop_indptr[r+1]] is not in the ranking of row r.
    """
    count: I32 = cuda.shared.array(0, int32)
    p, t, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    r, m = queries[p], matches[p]
    if t == 0:
        count[0] = 1
    cuda.syncthreads()
    before = 0
    for g in range(t, rows.shape[1], threads):
        if _stands_before(rows, r, g, m):
            before += 1
    for d in range(drop_indptr[r] + t, drop_indptr[r + 1], threads):
        if _stands_before(rows, r, dropped[d], m):
            before -= 1
    cuda.atomic.add(count, 0, before)
    cuda.syncthreads()
    if t == 0:
        out[p] = count[0]

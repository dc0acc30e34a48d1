"""Kernels on sparse codes (CSR): weights, sums of rows, and what query and gallery rows share."""

import math
from typing import Any

import numpy as np
from numba import int32

from murank_kernels._types import F32, I32, I64
from murank_kernels.codes.encoding import FLOOR
from murank_kernels.cuda.kernel import cuda, device_function, kernel


@device_function
def _root(distance_squared: np.float32) -> Any:
    return max(np.float32(math.sqrt(distance_squared)), FLOOR)


@device_function
def _normalised(distance_squared: np.float32, row_max: np.float32, squared: bool) -> Any:
    if squared:
        return distance_squared / row_max if row_max > 0 else np.float32(0)
    return _root(distance_squared) / row_max


@kernel("void(i8[::1], f4[::1], f4[::1], b1)")
def weigh(indptr: I64, data: F32, row_max: F32, squared: bool) -> None:
    """Squared distances of each row -> exp(-nd) over the row's sum, in place. A thread a row."""
    i = cuda.grid(1)
    if i < row_max.shape[0]:
        total = np.float32(0)
        for p in range(indptr[i], indptr[i + 1]):
            data[p] = math.exp(-_normalised(data[p], row_max[i], squared))
            total += data[p]
        for p in range(indptr[i], indptr[i + 1]):
            data[p] /= total


@kernel("void(i8[::1], i4[::1])")
def row_numbers(indptr: I64, out: I32) -> None:
    """Row of each stored entry. A thread a row."""
    i = cuda.grid(1)
    if i < indptr.shape[0] - 1:
        for p in range(indptr[i], indptr[i + 1]):
            out[p] = i


@kernel("void(i4[:,::1], i8, i4[:,::1], f4[:,::1])")
def sort_by_index(near: I32, k: int, indices: I32, weights: F32) -> None:
    """Rank lists -> rows of (index, k - place), ascending by index. A thread an entry."""
    p = cuda.grid(1)
    length = near.shape[1]
    if p < near.shape[0] * length:
        i, a = p // length, p % length
        place = 0
        for b in range(length):
            if near[i, b] < near[i, a]:
                place += 1
        indices[i, place] = near[i, a]
        weights[i, place] = k - a


@device_function
def _find(indptr: I64, indices: I32, row: int, column: int) -> Any:
    """Place of a column in a row whose columns ascend, or -1."""
    low, high = indptr[row], indptr[row + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < column:
            low = middle + 1
        else:
            high = middle
    if low < indptr[row + 1] and indices[low] == column:
        return low
    return -1


@kernel("void(i4[:,::1], f4, i8[::1], i4[::1], f4[::1], i8[::1], b1, i4[::1], f4[::1])")
def add_rows(
    added: I32,
    divisor: np.float32,
    indptr: I64,
    indices: I32,
    data: F32,
    out_indptr: I64,
    fill: bool,
    out_indices: I32,
    out_data: F32,
) -> None:
    """Sum of the rows r in added[i] over `divisor`, for each i. A block a row, of few threads.

    The columns of a row must ascend; those of the sum stand in order of first appearance. Each
    is summed by one thread in the order of `added`, as on a CPU. Run twice, as in set_kernels.
    """
    flags = cuda.shared.array(0, int32)
    i, t, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    end = np.int64(0)
    if fill:
        end = out_indptr[i]
    for a in range(added.shape[1]):
        stop = indptr[added[i, a] + 1]
        for start in range(indptr[added[i, a]], stop, threads):
            p = start + t
            new = 0
            if p < stop:
                new = 1
                for b in range(a):
                    if _find(indptr, indices, added[i, b], indices[p]) >= 0:
                        new = 0
                        break
            flags[t] = new
            cuda.syncthreads()
            ahead = 0
            total = 0
            for other in range(threads):
                if other == t:
                    ahead = total
                total += flags[other]
            if fill and new == 1:
                value = data[p]
                for b in range(a + 1, added.shape[1]):
                    place = _find(indptr, indices, added[i, b], indices[p])
                    if place >= 0:
                        value += data[place]
                out_indices[end + ahead] = indices[p]
                out_data[end + ahead] = value / divisor
            end += total
            cuda.syncthreads()
    if t == 0 and not fill:
        out_indptr[i] = end


@kernel("void(i8[::1], i4[::1], f4[::1], i8[::1], i4[::1], f4[::1], i8, b1, f4[:,::1])")
def share(
    indptr: I64,
    indices: I32,
    data: F32,
    column_indptr: I64,
    column_indices: I32,
    column_data: F32,
    first_query: int,
    products: bool,
    shared: F32,
) -> None:
    """shared[r,g] += what query row r and gallery row g have in common. A block a query.

    That is the sum of the smaller weight of each column, or with `products` of their product. A
    column names a gallery item once, so no two threads meet, and the order of sums is fixed.
    """
    r = cuda.blockIdx.x
    for p in range(indptr[first_query + r], indptr[first_query + r + 1]):
        start, stop = column_indptr[indices[p]], column_indptr[indices[p] + 1]
        for q in range(start + cuda.threadIdx.x, stop, cuda.blockDim.x):
            both = min(data[p], column_data[q])
            if products:
                both = data[p] * column_data[q]
            shared[r, column_indices[q]] += both
        cuda.syncthreads()


@kernel("void(f4[:,::1], f4[:,::1], f4[::1], i8, b1, f4)")
def mix(
    rows: F32,
    shared: F32,
    row_max: F32,
    first_query: int,
    squared: bool,
    lambda_value: np.float32,
) -> None:
    """Squared distances -> (1-lambda) Jaccard + lambda nd, in place. A block a query."""
    r = cuda.blockIdx.x
    largest = row_max[first_query + r]
    if largest == 0:
        largest = np.float32(1)  # a row of zeros stays one
    rest = np.float32(1) - lambda_value
    for g in range(cuda.threadIdx.x, rows.shape[1], cuda.blockDim.x):
        distance = rows[r, g]
        if not squared:
            distance = _root(distance)
        m = shared[r, g]
        jaccard = np.float32(1) - m / (np.float32(2) - m)
        rows[r, g] = rest * jaccard + lambda_value * (distance / largest)


@kernel("void(f4[:,::1], f4[:,::1], i8)")
def replace(rows: F32, agreement: F32, count: int) -> None:
    """Squared distances -> minus the mean agreement; roots where there is none. A block a query."""
    r = cuda.blockIdx.x
    for g in range(cuda.threadIdx.x, rows.shape[1], cuda.blockDim.x):
        if agreement[r, g] == 0:
            rows[r, g] = math.sqrt(rows[r, g])
        else:
            rows[r, g] = -(np.float64(agreement[r, g]) / count)

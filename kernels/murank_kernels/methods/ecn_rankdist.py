"""ECN with rank-list agreement, from two inverted indexes.

W[i,j] = max(0, k - place of j in row i); agreement of two rows = W[a] . W[b]. With A[i] = the sum
of W over the expanded neighbours of i, the sum of all agreements is A[q] . W[g] + A[g] . W[q].
"""

import numpy as np

from murank_kernels._types import F32, I32, I64
from murank_kernels.codes.encoding import Codes, add_rows, gallery_columns
from murank_kernels.loops.compiled import compiled
from murank_kernels.tiles.distance_blocks import Finish


@compiled
def _add_products(
    indptr: I64, indices: I32, data: F32, column_indptr: I64, column_indices: I32,
    column_data: F32, i: int, agreement: F32,
) -> None:  # fmt: skip
    """agreement[g] += row i . row of gallery item g."""
    for p in range(indptr[i], indptr[i + 1]):
        weight = data[p]
        for c in range(column_indptr[indices[p]], column_indptr[indices[p] + 1]):
            agreement[column_indices[c]] += weight * column_data[c]


@compiled
def _replace(row: F32, agreement: F32, count: int) -> None:
    """Row of squared distances -> minus the mean agreement; roots where there is none."""
    for g in range(row.shape[0]):
        if agreement[g] == 0:
            row[g] = np.sqrt(row[g])
        else:
            row[g] = -(np.float64(agreement[g]) / count)
            agreement[g] = 0


def finish(near: I32, k: int, expanded: I32, num_query: int) -> Finish:
    """Prepare the step from squared distances to ECN distances.

    Parameters
    ----------
    near : [N,L] int32 rank lists, L = min(k, N)
    k : agreement of an item at place 0
    expanded : [N,m] int32 expanded neighbours, with repeats
    """
    num_rows, length = near.shape
    weights = np.arange(k, k - length, -1).astype(np.float32)
    lists = Codes(
        np.arange(num_rows + 1) * length,
        np.ascontiguousarray(near).reshape(-1),
        np.tile(weights, num_rows),
    )
    sums = add_rows(lists, expanded)
    list_columns, sum_columns = gallery_columns(lists, num_query), gallery_columns(sums, num_query)
    count = 2 * expanded.shape[1]

    def step(first_query: int, rows: F32) -> None:
        agreement = np.zeros(rows.shape[1], np.float32)
        for r, row in enumerate(rows):
            for own, columns in ((sums, list_columns), (lists, sum_columns)):
                _add_products(
                    own.indptr, own.indices, own.data,
                    columns.indptr, columns.indices, columns.data, first_query + r, agreement,
                )  # fmt: skip
            _replace(row, agreement, count)

    return step

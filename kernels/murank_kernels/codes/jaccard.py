"""Jaccard distance between sparse codes, mixed with the normalised distance."""

import numpy as np

from murank_kernels._types import F32, I32, I64
from murank_kernels.codes.encoding import FLOOR, Codes, Scale
from murank_kernels.loops.compiled import compiled


@compiled
def _mix(
    row: F32, shared: F32, row_max: np.float32, squared: bool, lambda_value: np.float32
) -> None:
    """Row of squared distances -> final distances, in place; `shared` is cleared."""
    rest = np.float32(1) - lambda_value
    largest = np.float32(1) if row_max == 0 else row_max  # a row of zeros stays one
    if not squared:
        for g in range(row.shape[0]):
            row[g] = max(np.float32(np.sqrt(row[g])), FLOOR)
    for g in range(row.shape[0]):
        m = shared[g]
        row[g] = rest * (np.float32(1) - m / (np.float32(2) - m)) + lambda_value * (
            row[g] / largest
        )
    shared[:] = 0


@compiled
def _jaccard_rows(
    indptr: I64,
    indices: I32,
    data: F32,
    column_indptr: I64,
    column_indices: I32,
    column_data: F32,
    row_max: F32,
    squared: bool,
    lambda_value: np.float32,
    first_query: int,
    rows: F32,
) -> None:
    shared = np.zeros(rows.shape[1], np.float32)
    for r in range(rows.shape[0]):
        i = first_query + r
        for p in range(indptr[i], indptr[i + 1]):
            weight = data[p]
            for q in range(column_indptr[indices[p]], column_indptr[indices[p] + 1]):
                shared[column_indices[q]] += min(weight, column_data[q])
        _mix(rows[r], shared, row_max[i], squared, lambda_value)


def jaccard_rows(
    codes: Codes, columns: Codes, scale: Scale, lambda_value: float, first_query: int, rows: F32
) -> None:
    """Turn squared query-gallery distances into (1-lambda) Jaccard + lambda nd, in place.

    Parameters
    ----------
    codes : V' of all N rows.
    columns : inverted index of the gallery's V', see `gallery_columns`.
    rows : [b,G] float32, squared distances of the queries first_query..first_query+b-1.
    """
    _jaccard_rows(
        codes.indptr, codes.indices, codes.data,
        columns.indptr, columns.indices, columns.data,
        scale.row_max, scale.squared, np.float32(lambda_value), first_query, rows,
    )  # fmt: skip

"""The k smallest entries of each row, in order."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from murank_kernels import _parallel, _validate
from murank_kernels._exceptions import InvalidInputError
from murank_kernels._neighbors import CHUNK, empty_lists, insert
from murank_kernels._types import F32, I32

SORT_ABOVE = 512  # longer lists are sorted whole: insertion costs k steps an entry


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _least(values: F32) -> np.float32:
    least = np.float32(np.inf)
    for t in range(values.shape[0]):
        least = min(least, values[t])
    return least


@njit(nogil=True, cache=True)
def select_rows(rows: F32, distances: F32, indices: I32) -> None:
    """Offer each entry of `rows` [b,G] to the lists [b,k] of its row."""
    last = distances.shape[1] - 1
    for r in range(rows.shape[0]):
        row = rows[r]
        for start in range(0, row.shape[0], CHUNK):
            stop = min(row.shape[0], start + CHUNK)
            # Columns come in ascending order, so an equal value never displaces an entry.
            if _least(row[start:stop]) < distances[r, last]:
                for t in range(start, stop):
                    if row[t] < distances[r, last]:
                        insert(distances[r], indices[r], row[t], t)


def smallest_k(distances: NDArray[np.floating], k: int) -> tuple[F32, I32]:
    """Find the k smallest distances of each row.

    Parameters
    ----------
    distances : [b,G] float, finite
    k : 1..G

    Returns
    -------
    (distances [b,k] float32, indices [b,k] int32), ascending, ties: lower index first.
    """
    rows = _validate.as_matrix(distances, "distances").astype(np.float32, copy=False)
    k = _validate.as_count(k, "top_k")
    if k > rows.shape[1]:
        raise InvalidInputError(f"top_k is {k}, but there are {rows.shape[1]} columns")
    values, indices = empty_lists(len(rows), k)

    def some(part: tuple[int, int]) -> None:
        these = slice(*part)
        if k > SORT_ABOVE:
            indices[these] = np.argsort(rows[these], axis=1, kind="stable")[:, :k]
            values[these] = np.take_along_axis(rows[these], indices[these], axis=1)
        else:
            select_rows(rows[these], values[these], indices[these])

    _parallel.run(some, _parallel.row_ranges(len(rows), 64), "top-k")
    return values, indices

"""The k smallest entries of each row, in order. The tie rule: the lower index first."""

import numpy as np
from numpy.typing import NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, I32
from murank_kernels.checks import validate
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled, to_read
from murank_kernels.loops.vector import WORD, flag_below, make_flags
from murank_kernels.tiles.lists import empty_lists, insert

CHUNK = 256  # entries tested against a bound that tightens from one to the next
SORT_ABOVE = 512  # longer lists are sorted whole: insertion costs k steps an entry


@compiled
def select_rows(rows: F32, distances: F32, indices: I32) -> None:
    """Offer each entry of `rows` [b,G] to the lists [b,k] of its row."""
    last = distances.shape[1] - 1
    flags = make_flags(CHUNK)
    words = flags.view(np.uint64)
    for r in range(rows.shape[0]):
        row = rows[r]
        for start in range(0, row.shape[0], CHUNK):
            values = row[start : start + CHUNK]
            flags[values.shape[0] :] = 0
            flag_below(values, distances[r, last], flags)
            for word in range(words.shape[0]):
                if words[word] == 0:
                    continue
                for t in range(word * WORD, (word + 1) * WORD):
                    # Columns come in ascending order, so an equal value displaces nothing.
                    if flags[t] and values[t] < distances[r, last]:
                        insert(distances[r], indices[r], values[t], start + t)


def smallest_k(distances: NDArray[np.floating], k: int) -> tuple[F32, I32]:
    """Find the k smallest distances of each row.

    Parameters
    ----------
    distances : [b,G] float, no NaN, below 3e38 in size
    k : 1..G

    Returns
    -------
    (distances [b,k] float32, indices [b,k] int32), ascending, ties: lower index first.
    """
    rows = validate.as_matrix(distances, "distances", limit=validate.LARGEST)
    k = validate.as_count(k, "k")
    if k > rows.shape[1]:
        raise InvalidInputError(f"k is {k}, but there are {rows.shape[1]} columns")
    return select(rows.astype(np.float32, copy=False), k)


def select(rows: F32, k: int) -> tuple[F32, I32]:
    """Do what `smallest_k` does, for rows that are known to be good."""
    rows = to_read(rows)
    values, indices = empty_lists(len(rows), k)

    def some(part: tuple[int, int]) -> None:
        these = slice(*part)
        if k > SORT_ABOVE:
            indices[these] = np.argsort(rows[these], axis=1, kind="stable")[:, :k]
            values[these] = np.take_along_axis(rows[these], indices[these], axis=1)
        else:
            select_rows(rows[these], values[these], indices[these])

    parallel.run(some, parallel.row_ranges(len(rows), 64), "top-k")
    return values, indices

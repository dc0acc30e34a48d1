"""The field's customary call: k-reciprocal re-ranking of distance matrices that already exist."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._types import F32, I32, I64
from murank_kernels.checks import validate
from murank_kernels.codes.encoding import Scale, encode, expand_queries, gallery_columns
from murank_kernels.codes.jaccard import jaccard_rows
from murank_kernels.codes.reciprocal_sets import expanded_sets
from murank_kernels.loops import parallel
from murank_kernels.methods.other_calls import check_matrices_given
from murank_kernels.tiles.lists import empty_lists
from murank_kernels.tiles.selection import select_rows

_CONVERT = (
    "pass distances, small = same person; of cosine similarities, distance = 1 - similarity, or "
    "(2 - 2 * similarity) ** 0.5 for the Euclidean one"
)


@dataclass(frozen=True)
class _Matrices:
    """E = [[q_q, q_g], [q_g.T, g_g]], distances as given; never put together."""

    q_g: F32  # [Q,G]
    q_q: F32  # [Q,Q]
    g_g: F32  # [G,G]

    @property
    def num_query(self) -> int:
        return len(self.q_q)

    @property
    def num_rows(self) -> int:
        return len(self.q_q) + len(self.g_g)

    def columns(self, start: int, stop: int) -> F32:
        """Squared columns of E as rows, [stop-start, N]: row i of the normalised distances.

        Columns, because the reference divides each column by its maximum and transposes.
        """
        q = self.num_query
        out = np.empty((stop - start, self.num_rows), np.float32)
        middle = min(max(start, q), stop)
        if start < middle:
            out[: middle - start, :q] = self.q_q[:, start:middle].T
            out[: middle - start, q:] = self.q_g[start:middle]
        if middle < stop:
            out[middle - start :, :q] = self.q_g[:, middle - q : stop - q].T
            out[middle - start :, q:] = self.g_g[:, middle - q : stop - q].T
        return np.square(out, out=out)

    def pair_distances(self, rows: tuple[int, int], indptr: I64, indices: I32, out: F32) -> None:
        """Squared E[j,i] of each stored pair (i,j) of these rows."""
        start, stop = rows
        low, high = indptr[start], indptr[stop]
        columns = self.columns(start, stop)
        own = np.repeat(np.arange(stop - start), np.diff(indptr[start : stop + 1]))
        out[low:high] = columns[own, indices[low:high]]


def re_ranking(
    q_g_dist: ArrayLike | None = None,
    q_q_dist: ArrayLike | None = None,
    g_g_dist: ArrayLike | None = None,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    **others: Any,
) -> F32:
    """Re-rank distance matrices by k-reciprocal encoding, called as the field is used to.

    The matrices already hold N x N numbers; from features, `k_reciprocal` is faster and smaller.

    Parameters
    ----------
    q_g_dist, q_q_dist, g_g_dist : [Q,G], [Q,Q], [G,G] float
        Euclidean distances; they are squared here. They need not be quite symmetric. Similarities
        are refused where the diagonals of q_q and g_g show that they are.
    k1, k2 : int
        Neighbours of the encoding and of the local query expansion.
    lambda_value : float
        Weight of the given distance beside the Jaccard distance, in [0,1].
    others
        None: what toolkits that take features here (probFea, galFea, ...) have is answered with the
        call that does the same.

    Returns
    -------
    [Q,G] float32 distances, small = same person. A row whose largest distance is 0 gets normalised
    distance 0.

    Raises
    ------
    InvalidInputError
        Shapes that do not fit together, NaN, negative or huge distances, similarities, parameters
        out of range.

    Source: Zhong et al., CVPR 2017.
    """
    distances = (q_g_dist, q_q_dist, g_g_dist)
    check_matrices_given(distances, (k1, k2, lambda_value), others)
    k1, k2 = validate.as_count(k1, "k1"), validate.as_count(k2, "k2")
    lambda_value = validate.as_fraction(lambda_value, "lambda_value")
    given = _matrices(*distances)
    indices, row_max = _neighbors(given, max(k1 + 1, k2))
    scale = Scale.of(row_max, squared=True)
    codes = encode(*expanded_sets(indices, k1), given.pair_distances, scale)
    if k2 > 1:
        codes = expand_queries(codes, indices[:, :k2])
    columns = gallery_columns(codes, given.num_query)
    out = np.square(given.q_g)
    finish = partial(jaccard_rows, codes, columns, scale, lambda_value)
    parallel.run(
        lambda part: finish(part[0], out[slice(*part)]),
        parallel.row_ranges(len(out), 64),
        "re-ranking",
    )
    return out


def _matrices(q_g_dist: Any, q_q_dist: Any, g_g_dist: Any) -> _Matrices:
    limit = 1e18  # squares fit float32
    q_g = validate.as_matrix(q_g_dist, "q_g_dist", limit=limit)
    num_query, num_gallery = q_g.shape
    q_q = validate.as_matrix(q_q_dist, "q_q_dist", (num_query, num_query), limit=limit)
    g_g = validate.as_matrix(g_g_dist, "g_g_dist", (num_gallery, num_gallery), limit=limit)
    for matrix, name in ((q_g, "q_g_dist"), (q_q, "q_q_dist"), (g_g, "g_g_dist")):
        validate.check_not_negative(matrix, name, _CONVERT)
    for matrix, name in ((q_q, "q_q_dist"), (g_g, "g_g_dist")):
        validate.check_self_distances(matrix, name, _CONVERT)
    return _Matrices(*(np.asarray(matrix, np.float32) for matrix in (q_g, q_q, g_g)))


def _neighbors(given: _Matrices, length: int) -> tuple[I32, F32]:
    length = min(length, given.num_rows)
    distances, indices = empty_lists(given.num_rows, length)
    row_max = np.zeros(given.num_rows, np.float32)

    def rows(part: tuple[int, int]) -> None:
        these = slice(*part)
        columns = given.columns(*part)
        row_max[these] = columns.max(axis=1)
        select_rows(columns, distances[these], indices[these])

    parallel.run(rows, parallel.row_ranges(given.num_rows, 128), "neighbours")
    return indices, row_max

"""mu-distance fusion (MUSE, arXiv 2606.16161): d' = (1-alpha) d + alpha * scale * mu."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels.checks import validate
from murank_kernels.fusion.scores import ScoredPairs, as_mu

SCALE = 2.0
"""The largest Euclidean distance between two unit vectors: mu in [0,1] is stretched to [0,2]."""


_AT_ONCE = 4096  # pairs whose rows are gathered together


@dataclass(frozen=True)
class Changes:
    """Entries of the N x N squared distances that fusion replaces, (i,j) and (j,i), as CSR.

    They are put into each tile of the distance product before anything reads it. Neighbour lists
    and row maxima of the fused distances are then exact without a special case for hub rows.
    """

    indptr: NDArray[np.int64]  # [N+1]
    indices: NDArray[np.int32]  # [nnz] columns, ascending within a row
    values: NDArray[np.float32]  # [nnz] squared fused distance


def fused_changes(features: NDArray[np.float32], pairs: ScoredPairs, alpha: float) -> Changes:
    """Fuse mu into the distances of the scored pairs, and nowhere else."""
    num_rows = features.shape[0]
    distances = _distances(features, pairs)
    fused = (1 - alpha) * distances + alpha * SCALE * pairs.mu
    rows = np.concatenate([pairs.first, pairs.second])
    columns = np.concatenate([pairs.second, pairs.first])
    values = np.tile(fused * fused, 2)
    order = np.lexsort((columns, rows))
    indptr = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=num_rows), out=indptr[1:])
    return Changes(indptr, columns[order].astype(np.int32), values[order].astype(np.float32))


def _distances(features: NDArray[np.float32], pairs: ScoredPairs) -> NDArray[np.float64]:
    """Euclidean distance of each pair, [P]."""
    squares = np.empty(len(pairs.mu))
    for start in range(0, len(squares), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        gap = features[pairs.first[some]] - features[pairs.second[some]]
        squares[some] = np.einsum("ij,ij->i", gap, gap, dtype=np.float64)
    return np.sqrt(squares)


def fuse_mu(
    distances: ArrayLike,
    mu: ArrayLike,
    candidates: ArrayLike,
    *,
    alpha: float = 0.2,
    scale: float = SCALE,
) -> NDArray[np.float32]:
    """Fuse mu-distances into a query x gallery distance matrix ("simple" fusion).

    Parameters
    ----------
    distances : [Q,G] float
        Euclidean distances between unit features, in [0,2], small = same person.
    mu : [Q,K] float
        p("different person") in [0,1], small = same person. For the swapped variant average both
        orders first.
    candidates : [Q,K] int
        Gallery index (0..G-1) of each column of `mu`, no index twice in a row.
    alpha : float
        Weight of mu in [0,1].
    scale : float
        What mu = 1 counts as; the largest possible distance.

    Returns
    -------
    [Q,G] float32, a new array; entries that are nobody's candidate are unchanged.

    Raises
    ------
    InvalidInputError
        A value outside its range, a negative distance, shapes that do not fit, a candidate twice in
        a row.

    Source: MUSE, arXiv 2606.16161, fusion of the mu-distance.
    """
    alpha = validate.as_fraction(alpha, "alpha")
    given = validate.as_matrix(distances, "distances", limit=validate.LARGEST)
    validate.check_not_negative(
        given, "distances", "of cosine similarities, distance = (2 - 2 * similarity) ** 0.5"
    )
    scale = validate.as_not_negative(scale, "scale")
    scores = as_mu(mu, candidates, *given.shape)
    assert scores is not None  # noqa: S101  both arguments are required
    values, columns = scores
    out = given.astype(np.float32)
    rows = np.arange(given.shape[0])[:, None]
    out[rows, columns] = (1 - alpha) * given[rows, columns] + alpha * scale * values
    return out

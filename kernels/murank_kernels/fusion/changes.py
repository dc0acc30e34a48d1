"""Which distances mu changes, and into what."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank_kernels.fusion.scores import ScoredPairs

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

    @classmethod
    def none(cls, num_rows: int) -> "Changes":
        """Replace nothing."""
        return cls(np.zeros(num_rows + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))


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

"""What the MLLM tells of pairs beside what the encoder tells of them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.datasets.labels import JUNK_PID, Labels
from murank.rerank.features import FeatureSet
from murank.rerank.mu import MuDistances

_AT_ONCE = 4096  # pairs
_ENOUGH = 20  # pairs of a kind, for a sentence


@dataclass(frozen=True)
class Told:
    """AUC: how often a pair of one person is put before one of two people; 0.5 tells nothing."""

    mu: float
    encoder: float
    aligned: float | None  # of the encoder's features aligned to cameras; None: they are not
    same: int  # pairs of one person
    different: int

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)

    @property
    def lines(self) -> list[str]:
        """The figures, and a sentence where the MLLM tells less."""
        aligned = "" if self.aligned is None else f", aligned {self.aligned:.4f}"
        best = max(self.encoder, self.encoder if self.aligned is None else self.aligned)
        lines = [
            f"AUC of {self.same} pairs of one person and {self.different} of two: mu "
            f"{self.mu:.4f}, encoder {self.encoder:.4f}{aligned}"
        ]
        if self.mu < best and min(self.same, self.different) >= _ENOUGH:
            lines.append(
                f"the MLLM tells less than the encoder on these pairs (AUC {self.mu:.4f} against "
                f"{best:.4f}): its mu may make rankings worse"
            )
        return lines


def auc(distances: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often a same-person pair has the smaller distance, ties half.

    Source: Mann and Whitney, 1947.
    """
    others = np.sort(distances[~same])
    own = distances[same]
    below, up_to = (np.searchsorted(others, own, side=side) for side in ("left", "right"))
    twice_lost = int(np.sum(below + up_to))
    return 1 - twice_lost / (2 * len(others) * len(own))


def told_of(
    mu: NDArray[np.floating[Any]],
    encoder: NDArray[np.floating[Any]],
    aligned: NDArray[np.floating[Any]] | None,
    same: NDArray[np.bool_],
) -> Told | None:
    """Compare distances [P] of pairs with their labels [P]; None if all are of one kind."""
    count = int(same.sum())
    if count in (0, len(same)):
        return None

    def of(distances: NDArray[np.floating[Any]]) -> float:
        return auc(distances.astype(np.float64), same)

    by_aligned = None if aligned is None else of(aligned)
    return Told(of(mu), of(encoder), by_aligned, count, len(same) - count)


def told_among_candidates(
    mu: MuDistances, labels: Labels, features: FeatureSet, aligned: FeatureSet | None
) -> Told | None:
    """Compare mu of candidates with the distances of their features.

    Without those that an evaluation leaves out: images of the query's person by its own camera, and
    images of nobody known.
    """
    query, column = np.nonzero(np.ones(mu.candidates.shape, bool))
    candidate = mu.candidates[query, column].astype(np.int64)
    pids, others = labels.q_pids[query], labels.g_pids[candidate]
    same = pids == others
    seen = same & (labels.q_camids[query] == labels.g_camids[candidate])
    counts = ~seen & (pids != JUNK_PID) & (others != JUNK_PID)
    query, rows = query[counts], candidate[counts] + features.num_query
    by_aligned = None if aligned is None else cosine_distances(aligned.features, query, rows)
    return told_of(
        mu.mu[query, column[counts]], cosine_distances(features.features, query, rows),
        by_aligned, same[counts],
    )  # fmt: skip


def cosine_distances(
    features: NDArray[np.floating[Any]], first: NDArray[np.integer[Any]],
    second: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:  # fmt: skip
    """Return 1 - cosine [P] of pairs of rows, summed in float64."""
    distances = np.empty(len(first), np.float64)
    for start in range(0, len(first), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        left, right = (features[rows[part]].astype(np.float64) for rows in (first, second))
        lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        distances[part] = 1 - np.einsum("ij,ij->i", left, right) / lengths
    return distances

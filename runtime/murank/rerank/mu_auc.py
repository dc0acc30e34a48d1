"""What the MLLM tells of pairs beside what the encoder tells of them."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.datasets.labels import Labels
from murank.rerank.features import FeatureSet
from murank.rerank.mu import MuDistances
from murank.rerank.mu_worth import gains_line, gains_near
from murank.rerank.verdicts import Verdicts

_AT_ONCE = 4096  # pairs
_ENOUGH = 20  # pairs of a kind, or comparisons, for a sentence


@dataclass(frozen=True)
class Within:
    """Each match of a query beside each other of the same query: which is nearer, ties half.

    This is what a ranking is made of. A query without a match, or with nothing else, has no part.
    """

    mu: float  # share that mu puts in the right order
    encoder: float
    aligned: float | None
    compared: int  # (match, other)
    encoder_wrong: int  # of these the encoder (aligned where it is) puts in the wrong order
    mu_right_there: float | None  # share of those that mu puts right; None: there are none


@dataclass(frozen=True)
class Told:
    """AUC: how often a pair of one person is put before one of two people; 0.5 tells nothing."""

    mu: float
    encoder: float
    aligned: float | None  # of the encoder's features aligned to cameras; None: they are not
    same: int  # pairs of one person
    different: int
    within: Within | None = None  # None: no query has pairs of both kinds

    def to_json(self) -> dict[str, Any]:
        """All of it, and what mu of such an AUC was worth where that was measured."""
        near = gains_near(self._decisive.mu)
        return {**asdict(self), "measured_gains": [one.to_json() for one in near]}

    @property
    def lines(self) -> list[str]:
        """The figures, what they were worth elsewhere, and a sentence where the MLLM tells less."""
        lines = [
            f"AUC of {self.same} pairs of one person and {self.different} of two: {_named(self)}"
        ]
        if self.within is not None:
            lines += _lines_within(self.within)
        if min(self.same, self.different) < _ENOUGH:
            return lines
        of = self._decisive
        best = of.encoder if of.aligned is None else max(of.encoder, of.aligned)
        if of.mu < best:
            lines.append(
                f"the MLLM tells less than the encoder on these pairs (AUC {of.mu:.4f} against "
                f"{best:.4f}): its mu may make rankings worse"
            )
        return [*lines, gains_line(of.mu)]

    @property
    def _decisive(self) -> "Told | Within":
        """What a ranking is made of, where there is enough of it."""
        within = self.within
        return self if within is None or within.compared < _ENOUGH else within


def _named(of: Told | Within) -> str:
    aligned = "" if of.aligned is None else f", aligned {of.aligned:.4f}"
    return f"mu {of.mu:.4f}, encoder {of.encoder:.4f}{aligned}"


def _lines_within(of: Within) -> list[str]:
    lines = [f"AUC within a query, of {of.compared} matches beside others: {_named(of)}"]
    if of.mu_right_there is not None:
        who = "encoder" if of.aligned is None else "aligned encoder"
        lines.append(
            f"of the {of.encoder_wrong} that the {who} puts in the wrong order mu puts "
            f"{100 * of.mu_right_there:.1f} % right ({100 * of.mu:.1f} % if its errors were "
            "independent of the encoder's)"
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
    query: Sequence[Hashable] | NDArray[np.integer[Any]],
) -> Told | None:
    """Compare distances [P] of pairs with their labels [P], and by their queries [P].

    None if all are of one kind.
    """
    count = int(same.sum())
    if count in (0, len(same)):
        return None

    def of(distances: NDArray[np.floating[Any]]) -> float:
        return auc(distances.astype(np.float64), same)

    by_aligned = None if aligned is None else of(aligned)
    within = _within(mu, encoder, aligned, same, query)
    return Told(of(mu), of(encoder), by_aligned, count, len(same) - count, within)


def _within(
    mu: NDArray[np.floating[Any]],
    encoder: NDArray[np.floating[Any]],
    aligned: NDArray[np.floating[Any]] | None,
    same: NDArray[np.bool_],
    query: Sequence[Hashable] | NDArray[np.integer[Any]],
) -> Within | None:
    known = [mu, encoder] if aligned is None else [mu, encoder, aligned]
    distances = np.stack([one.astype(np.float64) for one in known])
    orders = [np.zeros((len(known), 0), np.int8)]  # 1: the match is nearer, 0: a tie, -1
    for rows in _groups(query):
        match, other = rows[same[rows]], rows[~same[rows]]
        steps = distances[:, None, other] - distances[:, match, None]
        orders.append(np.sign(steps).astype(np.int8).reshape(len(known), -1))
    order = np.concatenate(orders, axis=1)
    if order.shape[1] == 0:
        return None
    wrong = order[-1] < 0
    right_there = (1 + float(order[0, wrong].mean())) / 2 if wrong.any() else None
    shares = ((1 + order.mean(axis=1)) / 2).tolist()
    by_aligned = None if aligned is None else shares[2]
    return Within(shares[0], shares[1], by_aligned, len(wrong), int(wrong.sum()), right_there)


def _groups(query: Sequence[Hashable] | NDArray[np.integer[Any]]) -> list[NDArray[np.intp]]:
    """Return the places of each query's pairs."""
    places: dict[Hashable, list[int]] = {}
    for place, name in enumerate(query):
        places.setdefault(name, []).append(place)
    return [np.array(some, np.intp) for some in places.values()]


def told_among_candidates(
    mu: MuDistances,
    labels: Labels,
    features: FeatureSet,
    aligned: FeatureSet | None,
    protocol: Mapping[str, Any] | None = None,
) -> Told | None:
    """Compare mu of candidates with the distances of their features.

    Without those that an evaluation drops by a protocol's rule (images of the query's person by its
    own camera), and images of nobody known.
    """
    verdicts = Verdicts(labels, {**(protocol or {}), "junk": "drop"})
    query, column = np.nonzero(np.ones(mu.candidates.shape, bool))
    candidate = mu.candidates[query, column].astype(np.int64)
    same = verdicts.same_person(query, candidate)
    counts = verdicts.counted_queries[query] & ~verdicts.dropped(query, candidate)
    query, rows = query[counts], candidate[counts] + features.num_query
    by_aligned = None if aligned is None else cosine_distances(aligned.features, query, rows)
    return told_of(
        mu.mu[query, column[counts]], cosine_distances(features.features, query, rows),
        by_aligned, same[counts], query,
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

"""A candidate match, and what `Engine.rank` returns."""

import math
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

_UNDECIDED = 0.5  # mu that a candidate is ordered by which the MLLM did not see


class MatchDict(TypedDict):
    """What `Match.asdict` returns."""

    corpus_id: int
    score: float
    mu: float | None


@dataclass(frozen=True)
class Match:
    """One candidate match; a person decides whether it is one."""

    corpus_id: int  # its place in the list that was given, or in the gallery
    distance: float  # what it was ranked by, small = same person; of `rank` that is mu
    mu: float | None  # p("different person"), small = same person; None where it was not seen
    # Euclidean, of unit features, in [0,2]; NaN from `rank`, which asks no encoder.
    encoder_distance: float = field(default=math.nan, compare=False)

    @property
    def score(self) -> float:
        """1 - distance, large = same person; of `rank` 0.5 where the MLLM did not see it."""
        return 1 - self.distance

    def asdict(self) -> MatchDict:
        """Return it as cross-encoders' `rank` does: corpus_id and score; with mu."""
        return {"corpus_id": self.corpus_id, "score": self.score, "mu": self.mu}


class Ranked(list[Match]):
    """Candidate matches, best first: a list that knows which candidates the MLLM saw."""

    scored: tuple[int, ...] = ()  # corpus_ids, in the order given; also of those left out
    partial: bool = False  # a deadline kept it from seeing all


def ranked(
    mu: NDArray[np.float64], num_candidates: int, *, top_k: int | None, most: float
) -> Ranked:
    """Order candidates by mu, best first, equal ones in the order given; the first `top_k`.

    Parameters
    ----------
    mu
        Of the first n candidates, [n]; the MLLM did not see the others.
    num_candidates
        How many there are.
    top_k
        Kept, at most; None: all.
    most
        Those with a larger mu are left out, and unless it is infinite those without mu, too.
    """
    seen = len(mu)
    sorted_by = np.append(mu, np.full(num_candidates - seen, _UNDECIDED))
    places = [
        place
        for place in np.argsort(sorted_by, kind="stable").tolist()
        if most == math.inf or (place < seen and mu[place] <= most)
    ]
    result = Ranked(
        Match(place, float(sorted_by[place]), float(mu[place]) if place < seen else None)
        for place in places[:top_k]
    )
    result.scored, result.partial = tuple(range(seen)), seen < num_candidates
    return result

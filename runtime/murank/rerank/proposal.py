"""How much mu is to count, and of how many candidates: chosen on labelled queries, and checked.

By cross-validation over queries: the queries of a person are all in one fold, and the gain is that
of each fold by what the others chose. Labels choose among rankings; none has a part in one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.labels import Labels
from murank.rerank.comparison import evaluation_of
from murank.rerank.features import FeatureSet
from murank.rerank.intervals import Gain, paired_gain
from murank.rerank.methods import METHODS, Progress, distance_blocks
from murank.rerank.mu import MuDistances
from murank.rerank.verdicts import Verdicts, rule_of

ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # beside 0: without mu
FOLDS = 5
PROPOSED = tuple(name for name, method in METHODS.items() if method.takes_mu)
_STEPS = (1, 2, 5)

Choice = tuple[float, int]  # alpha, and candidates of a query; (0, 0): without mu


@dataclass(frozen=True)
class Proposal:
    """What is proposed for a method."""

    method: str
    alpha: float  # 0: leave mu out
    candidates: int  # of a query; 0 where alpha is
    held_out: Gain  # in mAP over the method without mu, by what other people's queries chose
    tried: Mapping[Choice, float]  # mAP of each, on all queries
    people: int
    folds: int

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        tried = [
            {"alpha": alpha, "candidates": candidates, "mAP": value}
            for (alpha, candidates), value in self.tried.items()
        ]
        return {
            "method": self.method, "alpha": self.alpha, "candidates": self.candidates,
            "held_out": self.held_out.to_json(), "people": self.people, "folds": self.folds,
            "tried": tried,
        }  # fmt: skip

    @property
    def lines(self) -> list[str]:
        """What to pass, and what it was worth to people who had no part in the choice."""
        what = f"--alpha {self.alpha:g} and the first {self.candidates} candidates"
        return [
            f"proposed for {self.method}: {what if self.alpha else 'leave mu out (--no-mu)'}",
            f"held out ({self.folds} folds of {self.people} people): "
            f"{self.held_out.verdict('mu', self.method)}",
        ]


def check_proposable(labels: Labels, protocol: Mapping[str, Any]) -> None:
    """Raise InputError unless queries that can be evaluated show two people at least."""
    people = np.unique(labels.q_pids[Verdicts(labels, protocol).num_matches > 0])
    if len(people) < 2:
        raise InputError(
            "a proposal needs queries of two people at least, each with a match that counts "
            f"({rule_of(protocol)})"
        )


def propose(
    method: str,
    features: FeatureSet,
    mu: MuDistances,
    labels: Labels,
    *,
    protocol: Mapping[str, Any],
    progress: Callable[[str], Progress] | None = None,
) -> Proposal:
    """Try alphas, and prefixes of the scored candidates.

    Parameters
    ----------
    method
        One of PROPOSED.
    features
        Aligned where they are to be.
    mu
        Candidates in order: the first k of each query stand for k candidates.

    Raises
    ------
    InputError
        There are fewer than two people to evaluate by.
    """
    check_proposable(labels, protocol)
    show = None if progress is None else progress("propose")
    choices = _choices(mu.mu.shape[1])
    precisions = np.empty((len(choices), features.num_query))  # NaN: a query that does not count
    for place, choice in enumerate(choices):
        blocks = _blocks(method, features, mu, choice)
        precisions[place] = evaluation_of(blocks, labels, protocol).all_AP
        if show is not None:
            show("settings", place + 1, len(choices))
    counts = ~np.isnan(precisions[0])
    folds = _folds(labels.q_pids, counts)
    held_out = precisions[0].copy()
    for fold in range(int(folds.max()) + 1):
        others = counts & (folds != fold)
        held_out[folds == fold] = precisions[_best(precisions[:, others]), folds == fold]
    gain = paired_gain(precisions[0], held_out)
    # Not proposed: what does not carry from some people to others.
    alpha, candidates = choices[_best(precisions[:, counts]) if gain.mean > 0 else 0]
    tried = dict(zip(choices, precisions[:, counts].mean(axis=1).tolist(), strict=True))
    people = len(np.unique(labels.q_pids[counts]))
    return Proposal(method, alpha, candidates, gain, tried, people, int(folds.max()) + 1)


def _choices(most: int) -> list[Choice]:
    """All settings, those that ask less first."""
    steps = {step * 10**power for step in _STEPS for power in range(7)}
    counts = sorted({*(k for k in steps if k < most), most})
    return [(0.0, 0), *((alpha, k) for alpha in ALPHAS for k in counts)]


def _blocks(method: str, features: FeatureSet, mu: MuDistances, choice: Choice) -> Any:
    alpha, k = choice
    if not alpha:
        return distance_blocks("none" if METHODS[method].needs_mu else method, features)
    some = MuDistances(mu.mu[:, :k], mu.candidates[:, :k])
    return distance_blocks(method, features, some, alpha=alpha)


def _best(precisions: NDArray[np.float64]) -> int:
    """Return the first of the settings [S] with the largest mean over queries [S,Q]."""
    # Exact sums: rounding must not choose between settings that are equally good.
    return int(np.argmax([math.fsum(row) for row in precisions.tolist()]))


def _folds(pids: Sequence[int] | NDArray[Any], counts: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the fold of each query [Q], that of its person; -1 for one that does not count."""
    people, person = np.unique(np.asarray(pids)[counts], return_inverse=True)
    order = np.random.default_rng(0).permutation(len(people))
    folds = np.full(len(counts), -1, np.int64)
    folds[counts] = order[person] % min(FOLDS, len(people))
    return folds

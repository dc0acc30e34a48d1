"""What mu of a given AUC is worth: drawn by the labels, apart from what the encoder sees.

Where the MLLM's answers have the AUC of a row and err independently of the encoder, re-ranking of
aligned features gains what is told here. The answers' log-odds are normal about +-d/2 with variance
d, which is what calibrated answers have: their sigmoid is the probability that it is someone else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np
from photos.figures import Array, Score, aligned, evaluate
from photos.kept import Kept
from photos.stages import CANDIDATES
from photos.tables import mean_score, table

from murank import FeatureSet, MuDistances
from murank.rerank.mu_auc import told_among_candidates
from murank_kernels import simple

AUCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
RERANKERS = ("k-reciprocal", "CA-Jaccard")
ENCODER = "aligned encoder"
_QUERIES = 1_000  # so many in all: a small set's mu is drawn several times
_WITHOUT = "without mu"


def room(given: FeatureSet, kept: Kept) -> dict[str, dict[str, Score]]:
    """Measure re-ranking of aligned features, without mu and with that of ten candidates.

    Gains by AUC, alpha 0.2. The encoder's row is its own AUC among the candidates, percent: within
    a query, and of all.
    """
    ready = _Ready.of(given)
    found: dict[str, dict[str, Score]] = {ENCODER: {"AUC": kept.row(ENCODER, ready.of_encoder)}}
    for method in RERANKERS:
        before = kept.row(method, partial(ready.score, method))
        found[method] = {_WITHOUT: before}
        for auc in AUCS:
            after = kept.row(f"{method}, {auc:g}", partial(ready.score, method, auc))
            found[method][f"{auc:g}"] = after[0] - before[0], after[1] - before[1]
    return found


def drawn_mu(same: Array, auc: float, random: np.random.Generator) -> Array:
    """Mu of pairs, of which `same` are of one person: any shape; AUC 1 is the truth."""
    if auc == 1:
        return np.where(same, 0.0, 1.0).astype(np.float32)
    step = 2**0.5 * NormalDist().inv_cdf(auc)  # between the means, in standard deviations
    seen = random.standard_normal(same.shape) + np.where(same, -step / 2, step / 2)
    return (1 / (1 + np.exp(-step * seen))).astype(np.float32)


def room_table(found: Mapping[str, Mapping[str, Mapping[str, Score]]]) -> str:
    """A row a set and re-ranker; below, the least and the most of each column."""
    columns = [f"AUC {auc:g}" for auc in AUCS]
    rows, gains = {}, []
    for name, figures in found.items():
        of_query, of_all = figures[ENCODER]["AUC"]
        for method in RERANKERS:
            cells = figures[method]
            gains.append([cells[f"{auc:g}"] for auc in AUCS])
            before = "/".join(f"{value:.1f}" for value in cells[_WITHOUT])
            rows[f"{name}, {method} ({before})"] = [
                f"{of_query:.1f}, {of_all:.1f}",
                *map(_signed, gains[-1]),
            ]
    for what, pick in ("least", np.min), ("most", np.max):
        rows[what] = ["", *map(_signed, pick(np.array(gains), axis=0))]
    return table(
        f"what mu of {CANDIDATES} aligned candidates adds to mAP/rank-1 where it errs "
        "independently of the encoder, by its AUC",
        ["encoder's AUC within a query, of all", *columns], rows,
    )  # fmt: skip


def _signed(score: Score) -> str:
    return f"{score[0]:+.1f}/{score[1]:+.1f}"


@dataclass(frozen=True)
class _Ready:
    """Aligned features, and who is on their candidates."""

    features: FeatureSet
    candidates: Array  # [Q,K]
    same: Array  # [Q,K] whether it is the query's person

    @classmethod
    def of(cls, given: FeatureSet) -> _Ready:
        features = aligned(given, "pairs")
        found = simple(features.features, features.num_query, top_k=CANDIDATES)[1]
        candidates = found.astype(np.int64)
        labels = features.labels
        assert labels is not None
        return cls(features, candidates, labels.g_pids[candidates] == labels.q_pids[:, None])

    def of_encoder(self) -> Score:
        assert self.features.labels is not None
        truth = drawn_mu(self.same, 1, np.random.default_rng(0))
        told = told_among_candidates(
            MuDistances(truth, self.candidates), self.features.labels, self.features, None
        )
        assert told is not None
        assert told.within is not None
        return 100 * told.within.encoder, 100 * told.encoder

    def score(self, method: str, auc: float | None = None) -> Score:
        """The mean over draws of mu, of which one is the truth; without mu where AUC is None."""
        if auc is None:
            return evaluate(self.features, method).score
        draws = 1 if auc == 1 else -(-_QUERIES // self.features.num_query)
        mus = [drawn_mu(self.same, auc, np.random.default_rng(draw)) for draw in range(draws)]
        return mean_score(
            [evaluate(self.features, method, MuDistances(mu, self.candidates)).score for mu in mus]
        )

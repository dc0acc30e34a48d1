"""What is measured on one set: re-rankers on its features as they are, and aligned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from murank import FeatureSet, MuDistances
from murank.rerank.alignment import Alignment, align
from murank.rerank.methods import distance_blocks
from murank_kernels import CameraAlignment, RankEvaluator

Array = NDArray[Any]
Score = tuple[float, float]  # mAP and rank-1, percent

METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "encoder": ("none", {}),
    "k-reciprocal": ("k-reciprocal", {"k1": 20, "k2": 6, "squared": True}),
    "CA-Jaccard": ("ca-jaccard", {}),
    "ECN": ("ecn", {}),
}
"""As the tables call it, as murank does, and with which parameters (k-reciprocal: Zhong et al.)."""

LEVELS: Mapping[str, Alignment] = {
    "as is": Alignment("off"),
    "mean": Alignment("mean"),
    "pairs, all directions": Alignment("pairs", "all"),
    "pairs": Alignment("pairs"),
}


@dataclass(frozen=True)
class Evaluated:
    """Figures of one ranking, and what they are the means of."""

    score: Score
    precisions: Array  # [Q] average precisions, NaN where a query has no match


def evaluate(
    features: FeatureSet, method: str, mu: MuDistances | None = None, **more: Any
) -> Evaluated:
    """Rank by one of METHODS, with mu fused where it is given."""
    name, parameters = METHODS[method]
    if mu is not None:
        name, more = ("simple" if name == "none" else name), {"mu": mu, **more}
    labels = features.labels
    assert labels is not None
    evaluator = RankEvaluator(*labels.as_arguments())
    for first, block in distance_blocks(name, features, **parameters, **more):
        evaluator.update(first, block)
    found = evaluator.result()
    return Evaluated((100 * found.mAP, 100 * float(found.cmc[0])), found.all_AP)


def aligned(features: FeatureSet, level: str) -> FeatureSet:
    """Align as `murank rerank --align-cameras` does."""
    return align(features, LEVELS[level]).features


def aligned_by(features: FeatureSet, alignment: CameraAlignment) -> FeatureSet:
    """Align with an alignment of one's own making."""
    assert features.camids is not None
    rows = alignment.apply(features.features, features.camids)
    return replace(features, features=rows)


def subset(features: FeatureSet, rows: Array) -> FeatureSet:
    """Keep some rows (indices, ascending: queries stay first)."""
    assert features.pids is not None and features.camids is not None  # noqa: PT018  of readers here
    return FeatureSet(
        features.features[rows], features.paths[rows], features.pids[rows], features.camids[rows],
        int((rows < features.num_query).sum()), features.encoder_sha256,
    )  # fmt: skip

"""Metrics as the command line shows and stores them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHOWN_RANKS = (1, 5, 10)
Metrics = dict[str, float | None]
"""Name -> fraction in [0,1], None where it is not known."""


def metrics_of(evaluation: Any) -> Metrics:
    """Return mAP, mINP and the shown ranks of a RankEvaluation."""
    exact: Metrics = {"mAP": float(evaluation.mAP), "mINP": float(evaluation.mINP)}
    return exact | cmc_metrics(evaluation.cmc)


def cmc_metrics(cmc: NDArray[np.floating[Any]]) -> Metrics:
    """Return the shown ranks of a CMC curve (rank r at cmc[r-1]); None beyond its end."""
    return {f"rank-{r}": float(cmc[r - 1]) if r <= len(cmc) else None for r in SHOWN_RANKS}

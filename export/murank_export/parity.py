"""What an export is worth: the engine's answers beside those of the PyTorch model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import MurankError
from murank.engine.manifest import Precision

_MOST_IN_FP32 = 1e-3  # difference of a logit, relative to the largest


def scorer_parity(
    wanted: NDArray[np.float32],
    found: NDArray[np.float32],
    mu_wanted: NDArray[np.float32],
    mu_found: NDArray[np.float32],
    precision: Precision,
) -> dict[str, Any]:
    """Compare logits [K,2] and mu [K].

    Raises
    ------
    MurankError
        The graph's are not finite, or they differ in float32: it computes something else.
    """
    if not np.isfinite(found).all():
        raise MurankError(
            f"in {precision} answers become NaN or infinite; export with --dtype fp32"
        )
    largest = float(np.abs(found - wanted).max())
    if precision == "fp32" and not largest <= _MOST_IN_FP32 * max(1.0, float(abs(wanted).max())):
        raise MurankError(
            f"the exported MLLM differs from PyTorch by {largest:.1e} in a logit; please report it"
        )
    return {
        "reference": "PyTorch float32, whole two-image prompts",
        "pairs": len(wanted),
        "max_abs_logit": largest,
        "max_abs_mu": float(np.abs(mu_found - mu_wanted).max()),
        "spearman": rank_correlation(wanted[:, 0] - wanted[:, 1], found[:, 0] - found[:, 1]),
        "same_first": bool(mu_found.argmin() == mu_wanted.argmin()),
    }


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float | None:
    """Return Spearman's rank correlation; None for fewer than three values or all alike."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    ranks = [_mean_ranks(values) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rank of each value; equal ones share the mean of theirs."""
    below = (values[:, None] > values[None]).sum(1)
    not_above = (values[:, None] >= values[None]).sum(1)
    ranks: NDArray[np.float64] = (below + not_above - 1) / 2
    return ranks

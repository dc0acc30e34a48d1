"""What an export is worth: the engine's answers beside those of the PyTorch model."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import ParityError
from murank.backends.onnx.session import SessionSettings
from murank.engine.golden import golden_scorer
from murank.engine.scorer import Scorer
from murank.folder.contents import EngineFiles
from murank.folder.manifest import ScorerPart
from murank.folder.precision import ARITHMETIC, Float, Precision
from murank_export.graphs.emulated import EMULATION, emulate_bfloat16

# Differences of the log-odds of "No", relative to itself where that is above 1.
_MOST: Mapping[Precision, float] = {"fp32": 1e-3}  # others: below 1, or they are of no use
_MEASURED_ON: Mapping[Float, str] = {
    "float32": "CPUExecutionProvider",
    "float16": "CPUExecutionProvider, which computes float16 graphs in float32",
    "bfloat16": "CPUExecutionProvider, an emulation: float32, each result rounded to bfloat16",
}


@contextlib.contextmanager
def scorer_on_cpu(folder: Path, part: ScorerPart, precision: Precision) -> Iterator[Scorer]:
    """Load the scorer of an engine folder for the CPU, where a bfloat16 one has to be emulated.

    What the emulation needs in the folder is removed at the end.
    """
    if ARITHMETIC[precision].floats != "bfloat16":
        yield golden_scorer(EngineFiles(folder), part, SessionSettings("cpu"))
        return
    emulated = replace(part, vision=f"{part.vision}.emulated", decoder=f"{part.decoder}.emulated")
    try:
        emulate_bfloat16(folder / part.vision, folder / emulated.vision)
        emulate_bfloat16(folder / part.decoder, folder / emulated.decoder)
        yield golden_scorer(EngineFiles(folder), emulated, EMULATION)
    finally:
        for name in (emulated.vision, emulated.decoder):
            (folder / name).unlink(missing_ok=True)


def merge_parity(applied: NDArray[np.float32], merged: NDArray[np.float32]) -> float:
    """Return the largest difference of a logit [K,2] that merging an adapter made.

    Both compute the same in float32, in another order of its sums: the same bound holds as for a
    float32 graph, relative to a logit where that is above 1.

    Raises
    ------
    ParityError
        The merged model answers otherwise than its adapter was trained to.
    """
    apart = np.abs(merged - applied)
    if not (apart / np.maximum(1, np.abs(applied))).max() <= _MOST["fp32"]:
        raise ParityError(
            f"with the adapter merged into its weights the model answers otherwise, by "
            f"{apart.max():.1e} in a logit; please report it"
        )
    return float(apart.max())


def scorer_parity(
    wanted: NDArray[np.float32], found: NDArray[np.float32], tau: float, precision: Precision
) -> dict[str, Any]:
    """Compare logits [K,2] of No and Yes.

    The log-odds decide, not mu: where a model is sure, mu is the same whatever happens to them.

    Raises
    ------
    ParityError
        The graph's are not finite; in float32 they differ, so that it computes something else; or
        they differ so much in a lower precision that it is of no use.
    """
    if not np.isfinite(found).all():
        raise ParityError(
            f"in {precision} answers become NaN or infinite; export with --dtype fp32"
        )
    odds = [_log_odds(logits, tau) for logits in (wanted, found)]
    moved = float((np.abs(odds[1] - odds[0]) / np.maximum(1, np.abs(odds[0]))).max())
    if not moved <= _MOST.get(precision, 1.0):
        what = "please report it" if precision == "fp32" else "export with another --dtype"
        raise ParityError(
            f"the log-odds of the exported MLLM in {precision} differ from PyTorch's by "
            f"{moved:.1e}; {what}"
        )
    mu = [np.exp(-np.logaddexp(0, -value)) for value in odds]
    return {
        "reference": "PyTorch float32, whole two-image prompts",
        "measured_on": _MEASURED_ON[ARITHMETIC[precision].floats],
        "pairs": len(wanted),
        "max_abs_logit": float(np.abs(found - wanted).max()),
        "max_log_odds": moved,
        "max_abs_mu": float(np.abs(mu[1] - mu[0]).max()),
        "spearman": rank_correlation(odds[0], odds[1]),
        "same_first": bool(odds[1].argmin() == odds[0].argmin()),
    }


def _log_odds(logits: NDArray[np.float32], tau: float) -> NDArray[np.float64]:
    """log(p(No) / p(Yes)): small = same person."""
    wide = logits.astype(np.float64)
    odds: NDArray[np.float64] = (wide[:, 0] - wide[:, 1]) / tau
    return odds


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Return Spearman's rank correlation; None for fewer than three values or all alike."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    ranks = [_mean_ranks(values) for values in (one, other)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each value; equal ones share the mean of theirs."""
    below = (values[:, None] > values[None]).sum(1)
    not_above = (values[:, None] >= values[None]).sum(1)
    ranks: NDArray[np.float64] = (below + not_above - 1) / 2
    return ranks

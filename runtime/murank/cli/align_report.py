"""What `murank align` tells: for a person, or for a script."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.cli.in_flags import reason_in_flags
from murank.cli.table import table
from murank.datasets.market_style import is_nobody
from murank.jobs.judging import Judged
from murank.rerank.alignment import Fitted
from murank.rerank.features import Items
from murank.rerank.verdicts import evaluated_line

_COLUMNS = ("mAP", "rank-1", "rank-5", "rank-10")
_NAMED = 3  # skipped images


@dataclass(frozen=True)
class Learnt:
    """What was done."""

    features: Path
    gallery: Items  # whose cameras were looked at
    unasked: Fitted  # before the MLLM was asked
    fitted: Fitted
    judged: Judged | None
    evaluated: Mapping[str, Any] | None  # a summary of the encoder, as it is and aligned
    output: Path | None


def as_json(learnt: Learnt) -> dict[str, Any]:
    """Return everything, JSON-ready."""
    cameras, evaluated = learnt.fitted.cameras, learnt.evaluated
    metrics = None if evaluated is None else evaluated["metrics"]
    counts = zip(cameras.camids.tolist(), cameras.counts.tolist(), strict=True)
    return {
        "schema_version": 1,
        "features": str(learnt.features),
        "encoder_sha256": cameras.encoder_sha256,
        "level": learnt.fitted.level,
        "dim": cameras.dim,
        "dims": cameras.dims,
        "cameras": [{"camid": camid, "rows": int(rows)} for camid, rows in counts],
        "pairs": len(cameras.pairs),
        "right": right_share(learnt.fitted, learnt.gallery),
        "verified": None if learnt.judged is None else _verified(learnt, learnt.judged),
        "metrics": None if metrics is None else {k: metrics[k] for k in ("before", "aligned")},
        "protocol": None if evaluated is None else evaluated["protocol"],
        "not_evaluated": None if evaluated is None else evaluated["not_evaluated"],
        "output": None if learnt.output is None else str(learnt.output),
        "notes": _notes(learnt),
    }


def report_lines(learnt: Learnt) -> Iterator[str]:
    """Yield what was learnt from, what it is, and what it does where labels tell."""
    said = as_json(learnt)
    cameras = ", ".join(f"{one['camid']}: {one['rows']}" for one in said["cameras"])
    yield f"{learnt.features}: {len(said['cameras'])} cameras, gallery rows of each: {cameras}"
    yield f"alignment ({said['level']}): {said['dims']} of {said['dim']} directions kept"
    if said["level"] == "pairs":
        yield f"{said['pairs']} pairs of two cameras were taken as one person"
    yield from _right_line(said["right"])
    if said["verified"] is not None:
        yield from _verified_lines(said["verified"])
    if said["metrics"] is not None and said["metrics"]["before"] is not None:
        rows = {"encoder": said["metrics"]["before"], "aligned": said["metrics"]["aligned"]}
        yield evaluated_line(said["protocol"], said["metrics"]["before"])
        yield from table(rows, _COLUMNS)
    if said["not_evaluated"] is not None:
        yield said["not_evaluated"]
    yield from said["notes"]
    yield "nothing was written (no -o)" if learnt.output is None else f"written: {learnt.output}"


def right_share(fitted: Fitted, gallery: Items) -> dict[str, Any] | None:
    """Return how many pairs are of one person, among those of known people; None: nobody knows.

    By number, and by weight.
    """
    if gallery.pids is None:
        return None
    named = zip(gallery.paths.tolist(), gallery.pids.tolist(), strict=True)
    known_row = np.array([not is_nobody(*one) for one in named], bool)
    pairs = fitted.cameras.pairs
    known = known_row[pairs].all(axis=1)
    weights: NDArray[np.float64] = fitted.cameras.weights[known]
    if not weights.sum():
        return None
    same = np.equal(*gallery.pids[pairs[known]].T)
    return {
        "pairs": int(known.sum()),
        "share": float(same.mean()),
        "by_weight": float(np.average(same, weights=weights)),
    }


def _right_line(right: Mapping[str, Any] | None) -> Iterator[str]:
    if right is not None:
        yield (
            f"{100 * right['share']:.1f} % of {right['pairs']} pairs of known people are right, "
            f"{100 * right['by_weight']:.1f} % by weight (information only: labels had no part in "
            "the fit)"
        )


def _verified(learnt: Learnt, judged: Judged) -> dict[str, Any]:
    return {
        "asked": len(judged.places),
        "mu": float(judged.mu.mean()),
        "right_before": right_share(learnt.unasked, learnt.gallery),
        "skipped": [
            {**skip._asdict(), "reason": reason_in_flags(skip.reason)} for skip in judged.skips
        ],
    }


def _verified_lines(verified: Mapping[str, Any]) -> Iterator[str]:
    before = verified["right_before"]
    was = "" if before is None else f"; before, {100 * before['by_weight']:.1f} % by weight"
    yield f"the MLLM was asked about {verified['asked']} of them: mean mu {verified['mu']:.3f}{was}"
    skipped = verified["skipped"]
    if skipped:
        yield f"{len(skipped)} images could not be used; their pairs count as before:"
    yield from (f"  {one['reason']}" for one in skipped[:_NAMED])
    if len(skipped) > _NAMED:
        yield "  ... (--json lists all)"


def _notes(learnt: Learnt) -> list[str]:
    if learnt.evaluated is not None:  # its notes say the same, of queries, too
        return list(learnt.evaluated["notes"])
    return [] if learnt.fitted.note is None else [learnt.fitted.note]

"""What `murank calibrate` tells: for a person, or for a script."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from murank.calibration import Calibrated, Quality, Rate, ScoredPairs
from murank.cli.in_flags import reason_in_flags
from murank.rerank.mu_auc import Told

_HARD = (
    "note: pairs that adapt mine chose are those which an encoder gets wrong, so that its AUC is "
    "low there; murank evaluate has both among candidates"
)
_SHOWN = 5  # skipped images that are named


@dataclass(frozen=True)
class Done:
    """What was done, apart from what was measured."""

    engine: Path
    sha256_before: str
    sha256: str | None  # None: nothing was written
    repeated: int  # pairs that were there once more
    wanted: int  # pairs without those
    told: Told | None = None  # by the MLLM beside the encoder, where the engine has one


def as_json(done: Done, measured: Calibrated, scored: ScoredPairs) -> dict[str, Any]:
    """Return everything, JSON-ready."""
    point, det = measured.point, measured.det
    return {
        "schema_version": 1,
        "engine": str(done.engine),
        "sha256_before": done.sha256_before,
        "sha256": done.sha256,
        "counts": {
            "same": point.fnmr.pairs,
            "different": point.fmr.pairs,
            "skipped": done.wanted - len(scored.pairs),
            "repeated": done.repeated,
        },
        "temperature": measured.temperature,
        "prior": measured.prior,
        "before": asdict(measured.before),
        "after": asdict(measured.after),
        "target": asdict(measured.target),
        "threshold": point.threshold,
        "fmr": _rate(point.fmr),
        "fnmr": _rate(point.fnmr),
        "eer": measured.eer,
        "auc": measured.auc,
        "beside_encoder": None if done.told is None else done.told.to_json(),
        "det": {
            "threshold": det.thresholds.tolist(),
            "fmr": det.fmr.tolist(),
            "fnmr": det.fnmr.tolist(),
        },
        "skipped": [
            {**asdict(one), "reason": reason_in_flags(one.reason)} for one in scored.skipped
        ],
        "notes": list(measured.notes),
    }


def report_lines(done: Done, measured: Calibrated, scored: ScoredPairs) -> Iterator[str]:
    """Yield a table, the operating point, and what must be known."""
    point = measured.point
    yield (
        f"{len(scored.pairs)} pairs: {point.fnmr.pairs} of the same person, {point.fmr.pairs} of "
        "different people"
    )
    yield from _skipped(done, scored)
    yield f"{'':<20}{'NLL':>10}{'Brier':>10}{'ECE':>10}"
    yield _row("temperature 1", measured.before)
    yield _row(f"temperature {measured.temperature:.4g}", measured.after)
    yield f"AUC        {measured.auc:.4f}"
    yield from () if done.told is None else (*done.told.lines, _HARD)
    yield f"EER        {100 * measured.eer:.2f} %"
    yield f"threshold  mu <= {point.threshold:.6g} ({measured.target})"
    yield f"FMR        {_counted(point.fmr, 'different-person')}"
    yield f"FNMR       {_counted(point.fnmr, 'same-person')}"
    for note in measured.notes:
        yield f"note: {note}"
    if done.sha256 is None:
        yield "nothing was written (--dry-run)"
    else:
        yield f"sha256     {done.sha256}"
        yield f"note: before it was {done.sha256_before}; change what pins this engine"


def _skipped(done: Done, scored: ScoredPairs) -> Iterator[str]:
    if done.repeated:
        yield f"repeated in the file, counted once: {_pairs(done.repeated)}"
    if scored.skipped:
        yield (
            f"skipped: {_pairs(done.wanted - len(scored.pairs))}, for want of images "
            f"({len(scored.skipped)}):"
        )
    for one in scored.skipped[:_SHOWN]:
        yield f"  {reason_in_flags(one.reason)}"
    if len(scored.skipped) > _SHOWN:
        yield "  ... (--json lists all)"


def _pairs(count: int) -> str:
    return "1 pair" if count == 1 else f"{count} pairs"


def _row(name: str, quality: Quality) -> str:
    return f"{name:<20}{quality.nll:>10.4f}{quality.brier:>10.4f}{quality.ece:>10.4f}"


def _counted(rate: Rate, kind: str) -> str:
    low, high = rate.interval
    return (
        f"{100 * rate.value:.2f} %, 95 % interval {100 * low:.2f} to {100 * high:.2f} % "
        f"({rate.errors} of {rate.pairs} {kind} pairs)"
    )


def _rate(rate: Rate) -> dict[str, Any]:
    return {
        "rate": rate.value, "errors": rate.errors, "pairs": rate.pairs,
        "interval": list(rate.interval),
    }  # fmt: skip

"""The largest mu of a candidate match: given, calibrated, or any."""

import math

from murank._exceptions import InputError
from murank.folder.manifest import Calibration
from murank.images.arguments import check_number


def largest_mu(
    threshold: float | str | None, calibration: Calibration | None, *, order: str
) -> float:
    """Return it; InputError if it is no number in 0..1, or was calibrated for something else."""
    if threshold is None:
        return math.inf
    if not (isinstance(threshold, str) and threshold == "calibrated"):
        if not 0 <= check_number(threshold, "threshold (in 0..1, or 'calibrated')") <= 1:
            raise InputError(f"threshold must be in 0..1, or 'calibrated', got {threshold!r}")
        return float(threshold)
    if calibration is None:
        raise InputError(
            "this engine has no calibrated threshold: run murank calibrate, or pass a number"
        )
    if order != "given":
        raise InputError(
            f"the threshold was calibrated with order='given', not {order!r}: pass a number"
        )
    return calibration.threshold

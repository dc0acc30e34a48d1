"""The DET curve: FMR against FNMR on axes of normal deviates, where most systems are straight.

Source: Martin, Doddington, Kamm, Ordowski, Przybocki, The DET curve in assessment of detection
task performance, Eurospeech 1997.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from murank.calibration.rates import Curve

_NORMAL = NormalDist()


def probit(rates: NDArray[np.float64], pairs: int) -> NDArray[np.float64]:
    """Return the normal deviates of rates among this many pairs; 0 and 1 are half an error off."""
    inside = np.clip(rates, 0.5 / pairs, 1 - 0.5 / pairs)
    return np.array([_NORMAL.inv_cdf(rate) for rate in inside.tolist()], np.float64)


def thinned(whole: Curve, most: int) -> Curve:
    """Keep at most this many points (2 or more), at even steps along the DET curve; both ends."""
    if len(whole.thresholds) <= most:
        return whole
    steps = np.hypot(
        np.diff(probit(whole.fmr, whole.different)), np.diff(probit(whole.fnmr, whole.same))
    )
    length = np.concatenate([[0], np.cumsum(steps)])
    places = np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)))
    return Curve(
        whole.thresholds[places], whole.false_matches[places], whole.false_non_matches[places],
        whole.same, whole.different,
    )  # fmt: skip

"""Calibration: what an engine's answers to labelled pairs say of its temperature and threshold.

Pairs -> log-odds -> temperature -> mu -> false match and false non-match rates -> threshold.
"""

from murank.calibration._measure import Measured, calibrate
from murank.calibration._quality import Quality, Reliability
from murank.calibration._rates import OperatingPoint, Rate
from murank.calibration._scoring import ScoredPairs, Skipped, distinct_pairs, score_pairs
from murank.calibration._store import store_calibration, store_defaults
from murank.calibration._target import Target

__all__ = [
    "Measured",
    "OperatingPoint",
    "Quality",
    "Rate",
    "Reliability",
    "ScoredPairs",
    "Skipped",
    "Target",
    "calibrate",
    "distinct_pairs",
    "score_pairs",
    "store_calibration",
    "store_defaults",
]

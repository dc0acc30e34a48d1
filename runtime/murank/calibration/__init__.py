"""Calibration: what an engine's answers to labelled pairs say of its temperature and threshold.

Pairs -> log-odds -> temperature -> mu -> false match and false non-match rates -> threshold.

Imports files, images, datasets, folder, engine, pairs, rerank, search, sheet.
"""

from murank.calibration.measure import Calibrated, calibrate
from murank.calibration.pair_answers import ScoredPairs, distinct_pairs, score_pairs
from murank.calibration.quality import Quality
from murank.calibration.rates import Rate
from murank.calibration.stored import store_calibration, store_defaults
from murank.calibration.target import ThresholdTarget

__all__ = [
    "Calibrated",
    "Quality",
    "Rate",
    "ScoredPairs",
    "ThresholdTarget",
    "calibrate",
    "distinct_pairs",
    "score_pairs",
    "store_calibration",
    "store_defaults",
]

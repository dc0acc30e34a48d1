"""From answers and labels to a temperature and an operating threshold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.calibration.det import thinned
from murank.calibration.quality import Quality, Reliability, quality, reliability
from murank.calibration.rates import Curve, OperatingPoint, curve, equal_error_rate
from murank.calibration.target import ThresholdTarget
from murank.calibration.temperature import HIGHEST, LOWEST, class_weights, fit_temperature
from murank.engine.scorer import mu_of
from murank.rerank.mu_auc import auc

DET_POINTS = 200  # kept, at most


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What the labelled pairs say."""

    temperature: float
    point: OperatingPoint  # its threshold is on mu at that temperature
    target: ThresholdTarget  # what the point was chosen by
    prior: float  # weight of the same-person pairs
    eer: float  # equal error rate
    auc: float
    before: Quality  # of mu at temperature 1
    after: Quality
    reliability: tuple[Reliability, Reliability]  # before, after
    det: Curve  # thinned
    notes: tuple[str, ...]  # what the reader must know


def calibrate(
    log_odds: NDArray[np.float64],
    same: NDArray[np.bool_],
    *,
    target: ThresholdTarget | None = None,
    prior: float = 0.5,
) -> Calibrated:
    """Choose temperature and threshold by labelled pairs.

    The rates are those of the very pairs that the threshold is chosen by.

    Parameters
    ----------
    log_odds
        log(p(No) / p(Yes)) [n] at temperature 1, small = same person.
    same
        Labels [n]: whether a pair shows one person.
    target
        What the threshold must keep; None: FMR of at most 1 %.
    prior
        Share of same-person pairs that the temperature, and what is said of probabilities, is to
        stand for. The shares among the given pairs have no influence.

    Raises
    ------
    InputError
        Too few pairs for the target, answers that are no numbers or all the same, a target that
        no threshold meets, a prior outside 0..1.
    """
    odds, labels = np.asarray(log_odds, np.float64), np.asarray(same)
    target = ThresholdTarget() if target is None else target
    _check(odds, labels, target, prior)
    weights = class_weights(labels, prior)
    temperature = fit_temperature(odds, labels, weights)
    mu = mu_of(odds / temperature)
    rates = curve(mu, labels)
    point = _point(rates, target)
    return Calibrated(
        temperature=temperature,
        point=point,
        target=target,
        prior=prior,
        eer=equal_error_rate(rates),
        auc=auc(mu, labels),
        before=quality(odds, labels, weights),
        after=quality(odds / temperature, labels, weights),
        reliability=(
            reliability(mu_of(odds), labels, weights), reliability(mu, labels, weights)
        ),
        det=thinned(rates, DET_POINTS),
        notes=_notes(temperature, point),
    )  # fmt: skip


def _check(
    log_odds: NDArray[np.float64], same: NDArray[np.bool_], target: ThresholdTarget, prior: float
) -> None:
    if log_odds.ndim != 1 or same.shape != log_odds.shape or same.dtype != np.bool_:
        raise InputError("log_odds must be numbers [n], and same their labels, bool [n]")
    if not 0 < prior < 1:
        raise InputError(f"prior must be between 0 and 1, got {prior}")
    count = int(same.sum())
    target.check(same=count, different=len(same) - count)
    if not np.isfinite(log_odds).all():
        raise InputError("log_odds must be finite")
    if np.ptp(log_odds) == 0:
        raise InputError("the engine answers every pair alike: there is nothing to calibrate")


def _point(rates: Curve, target: ThresholdTarget) -> OperatingPoint:
    if target.value is None:
        return rates.at_equal()
    if target.kind == "fnmr":
        return rates.at_fnmr(target.value)
    point = rates.at_fmr(target.value)
    if point is None:
        share, mu = 100 * rates.fmr[0], rates.thresholds[0]
        raise InputError(
            f"no threshold keeps {target}: {share:.2f} % of the different-person pairs have the "
            f"smallest mu of all, {mu:.3g}; pass a larger --fmr"
        )
    return point


def _notes(temperature: float, point: OperatingPoint) -> tuple[str, ...]:
    notes = []
    if temperature == LOWEST:
        notes.append(
            "the answers tell the two kinds of pairs apart (almost) without error, which asks for "
            f"ever lower temperatures: {LOWEST:g} is the bound; harder pairs would tell more"
        )
    if temperature == HIGHEST:
        notes.append(
            "the answers hardly tell the two kinds of pairs apart, which asks for ever higher "
            f"temperatures: {HIGHEST:g} is the bound; adapt the model to such images first"
        )
    if point.fnmr.value == 1:
        notes.append("no same-person pair is a match at this threshold")
    return tuple(notes)

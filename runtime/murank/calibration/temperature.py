"""The temperature of answers: one number that makes probabilities as sure as they are right."""

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.05, 20.0  # separable pairs would ask for 0, uninformative ones for infinity
_PRECISE = 1e-12  # relative width at which the search ends


def class_weights(same: NDArray[np.bool_], prior: float) -> NDArray[np.float64]:
    """Weights [n], 1 in all: `prior` shared by the same-person pairs, the rest by the others.

    How many pairs of each kind were mined says nothing about how many there are in service.
    """
    count = int(same.sum())
    return np.where(same, prior / count, (1 - prior) / (len(same) - count))


def fit_temperature(
    log_odds: NDArray[np.float64], same: NDArray[np.bool_], weights: NDArray[np.float64]
) -> float:
    """Return the temperature that makes the labels likeliest, within LOWEST..HIGHEST.

    The negative log-likelihood is convex in 1/T, so that its slope is zero once at most: bisection.

    Parameters
    ----------
    log_odds
        log(p(No) / p(Yes)) [n] at temperature 1, small = same person.
    same
        Labels [n]: whether a pair shows one person.
    weights
        Of the pairs, [n].

    Source: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, ICML 2017,
    section 4.2 (temperature scaling), here with two classes.
    """
    margins = np.where(same, -log_odds, log_odds)  # above 0: the answer is right
    if _slope(margins, weights, LOWEST) <= 0:
        return LOWEST
    if _slope(margins, weights, HIGHEST) >= 0:
        return HIGHEST
    low, high = LOWEST, HIGHEST
    while high - low > _PRECISE * high:
        middle = (low * high) ** 0.5
        if _slope(margins, weights, middle) > 0:  # 1/T is beyond the minimum: T is too low
            low = middle
        else:
            high = middle
    return high


def _slope(margins: NDArray[np.float64], weights: NDArray[np.float64], temperature: float) -> float:
    """Derivative of the negative log-likelihood by 1/T."""
    wrong = np.exp(-np.logaddexp(0, margins / temperature))  # probability of the other answer
    return -float(np.sum(weights * margins * wrong))

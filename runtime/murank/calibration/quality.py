"""How good probabilities are: negative log-likelihood, Brier score, calibration error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank.engine.scorer import mu_of

BINS = 15  # of mu, all of one width; the number that Guo et al. take


@dataclass(frozen=True)
class Quality:
    """Of mu as the probability that a pair shows different people; 0 is perfect."""

    nll: float  # negative log-likelihood of the labels, nats a pair
    brier: float  # mean squared error of mu
    ece: float  # expected calibration error: mean distance of mu from what is observed


@dataclass(frozen=True, eq=False)
class Reliability:
    """Pairs by their mu, in bins of one width that are not empty."""

    mu: NDArray[np.float64]  # [B] its mean in the bin
    different: NDArray[np.float64]  # [B] share of different-person pairs there
    weight: NDArray[np.float64]  # [B] share of all pairs

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return float(np.sum(self.weight * np.abs(self.mu - self.different)))


def quality(
    log_odds: NDArray[np.float64], same: NDArray[np.bool_], weights: NDArray[np.float64]
) -> Quality:
    """Measure answers [n], given as log-odds; weights [n] are 1 in all.

    Sources: Brier, Verification of forecasts expressed in terms of probability, 1950; Guo et al.,
    On Calibration of Modern Neural Networks, 2017 (there by confidence, here by mu).
    """
    mu = mu_of(log_odds)
    nll = np.sum(weights * np.logaddexp(0, np.where(same, log_odds, -log_odds)))
    brier = np.sum(weights * (mu - ~same) ** 2)
    return Quality(float(nll), float(brier), reliability(mu, same, weights).error)


def reliability(
    mu: NDArray[np.float64], same: NDArray[np.bool_], weights: NDArray[np.float64]
) -> Reliability:
    """Compare mu [n] with the share of different-person pairs; weights [n] are 1 in all."""
    bins = np.minimum((mu * BINS).astype(np.intp), BINS - 1)  # mu = 1 is in the last
    sums = np.stack(
        [np.bincount(bins, of, minlength=BINS) for of in (weights, weights * mu, weights * ~same)]
    )
    weight, sum_mu, sum_different = sums[:, sums[0] > 0]
    return Reliability(sum_mu / weight, sum_different / weight, weight)

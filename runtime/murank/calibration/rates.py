"""Error rates of decisions by a threshold on mu, in the words of ISO/IEC 19795-1.

A pair is called a match where mu <= threshold. FMR, the false match rate, is the share of
different-person pairs that are; FNMR, the false non-match rate, that of same-person pairs that are
not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054  # a normal value lies within it 95 times in 100


@dataclass(frozen=True)
class Rate:
    """An error rate that was counted."""

    errors: int
    pairs: int

    @property
    def value(self) -> float:
        """Errors a pair."""
        return self.errors / self.pairs

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval (Wilson, 1927), as if pairs were independent: those of a query are not."""
        n, rate = self.pairs, self.value
        centre = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * (rate * (1 - rate) / n + _Z**2 / (4 * n**2)) ** 0.5
        # What the square root rounds must not push the rate itself out.
        return min(max(0.0, centre - half), rate), max(min(1.0, centre + half), rate)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on mu, and the errors that were counted there."""

    threshold: float
    fmr: Rate
    fnmr: Rate


@dataclass(frozen=True, eq=False)
class Curve:
    """The errors at each threshold that is the mu of a measured pair, ascending: [P] arrays."""

    thresholds: NDArray[np.float64]
    false_matches: NDArray[np.int64]
    false_non_matches: NDArray[np.int64]
    same: int  # pairs of one person
    different: int  # pairs of two

    @property
    def fmr(self) -> NDArray[np.float64]:
        """False match rates [P], never falling."""
        return self.false_matches / self.different

    @property
    def fnmr(self) -> NDArray[np.float64]:
        """False non-match rates [P], never rising."""
        return self.false_non_matches / self.same

    def point(self, place: int) -> OperatingPoint:
        """Return one of the thresholds with its errors."""
        return OperatingPoint(
            float(self.thresholds[place]),
            Rate(int(self.false_matches[place]), self.different),
            Rate(int(self.false_non_matches[place]), self.same),
        )

    def at_fmr(self, most: float) -> OperatingPoint | None:
        """Return the largest threshold whose FMR is at most this; None if none is so small."""
        place = int(np.searchsorted(self.fmr, most, side="right")) - 1
        return None if place < 0 else self.point(place)

    def at_fnmr(self, most: float) -> OperatingPoint:
        """Return the smallest threshold whose FNMR is at most this."""
        return self.point(int(np.argmax(self.fnmr <= most)))

    def at_equal(self) -> OperatingPoint:
        """Return the threshold where FMR and FNMR are closest, the smallest of several."""
        return self.point(int(np.argmin(np.abs(self.fmr - self.fnmr))))


def curve(mu: NDArray[np.float64], same: NDArray[np.bool_]) -> Curve:
    """Count the errors of pairs, mu [n] and labels [n], at every threshold among their mu."""
    thresholds = np.unique(mu)
    matches = [
        np.searchsorted(np.sort(mu[kind]), thresholds, side="right") for kind in (same, ~same)
    ]
    count = int(same.sum())
    return Curve(thresholds, matches[1], count - matches[0], count, len(mu) - count)


def equal_error_rate(rates: Curve) -> float:
    """EER: the mean of FMR and FNMR where they are closest."""
    point = rates.at_equal()
    return (point.fmr.value + point.fnmr.value) / 2

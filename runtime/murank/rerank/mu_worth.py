"""What mu of a given AUC was worth, where somebody measured it."""

from dataclasses import dataclass
from typing import Any

Range = tuple[float, float]  # the least and the most of the sets, points


@dataclass(frozen=True)
class MeasuredGain:
    """What mu added to re-ranking of aligned features."""

    auc: float  # of mu among the candidates
    mean_precision: Range
    rank_1: Range

    def __str__(self) -> str:
        return f"of {self.auc:g} {_range(self.mean_precision)} mAP, {_range(self.rank_1)} rank-1"

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "auc": self.auc, "mAP": list(self.mean_precision), "rank-1": list(self.rank_1)
        }  # fmt: skip


MEASURED = (
    MeasuredGain(0.5, (-0.5, 0.5), (-2.0, 2.7)),
    MeasuredGain(0.6, (-0.3, 1.1), (-0.8, 2.7)),
    MeasuredGain(0.7, (1.0, 2.3), (0.9, 5.6)),
    MeasuredGain(0.8, (2.5, 4.2), (2.4, 8.7)),
    MeasuredGain(0.9, (4.6, 7.8), (5.9, 12.2)),
    MeasuredGain(0.95, (6.1, 10.4), (8.4, 13.9)),
    MeasuredGain(1.0, (8.4, 16.4), (12.6, 23.0)),
)
"""By `benchmarks/photographs.py --stages room`: four sets of photographs, OSNet x0.25, k-reciprocal
and CA-Jaccard, ten candidates, alpha 0.2, calibrated mu that errs independently of the encoder."""


def gains_near(auc: float) -> list[MeasuredGain]:
    """Return the measured rows beside an AUC: the next below and the next above, where they are."""
    below = [one for one in MEASURED if one.auc <= auc]
    above = [one for one in MEASURED if one.auc > auc]
    return below[-1:] + above[:1]


def gains_line(auc: float) -> str:
    """Say so in a sentence."""
    return (
        "on photographs mu of such AUC added to aligned re-ranking, where its errors were its own "
        f"(docs/photographs.md): {'; '.join(map(str, gains_near(auc)))}"
    )


def _range(ends: Range) -> str:
    return f"{ends[0]:+.1f} to {ends[1]:+.1f}"

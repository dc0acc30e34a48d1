"""What each camera's images have in common: a mean of unit rows for every camera."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from murank_kernels._types import F32, F64, I64
from murank_kernels.alignment.rows import Rows


@dataclass(frozen=True)
class CameraMeans:
    """Means of unit rows, each drawn towards the common mean by `prior` rows of it."""

    camids: I64  # [C] ascending
    counts: F64  # [C] rows seen, fewer where older rows count less
    sums: F64  # [C,D] of those rows
    prior: float

    @classmethod
    def of(cls, rows: Rows, camids: I64, prior: float) -> "CameraMeans":
        """Sum the N unit rows of each camera; a camera below 0 is none."""
        nothing = cls(np.empty(0, np.int64), np.empty(0), np.empty((0, rows.dim)), prior)
        return nothing.with_rows(rows, camids, None)

    def with_rows(self, rows: Rows, camids: I64, half_life: float | None) -> "CameraMeans":
        """Add rows in their order; `half_life` rows of its camera later, a row counts half.

        Rows of unknown cameras, below 0, count for nothing.
        """
        is_known = camids >= 0
        known = np.union1d(self.camids, camids[is_known])
        counts, sums = np.zeros(len(known)), np.zeros((len(known), rows.dim))
        old = np.searchsorted(known, self.camids)
        counts[old], sums[old] = self.counts, self.sums
        places = np.searchsorted(known, camids)  # of an unknown camera: any, for it has no weight
        seen = np.bincount(places[is_known], minlength=len(known))
        weights = is_known.astype(np.float64)
        if half_life is not None:
            with np.errstate(over="ignore"):  # half of a half of ...: 0
                weights[is_known] = 0.5 ** (_ages(places[is_known], seen) / half_life)
                kept = 0.5 ** (seen / half_life)
            counts, sums = kept * counts, kept[:, None] * sums
        counts = counts + np.bincount(places, weights, minlength=len(known))
        sums = sums + rows.sums(places, weights, len(known))
        return CameraMeans(known, counts, sums, self.prior)

    @cached_property
    def common(self) -> F64:
        """[D] mean of all rows."""
        mean: F64 = self.sums.sum(axis=0) / self.counts.sum()
        return mean

    @cached_property
    def offsets(self) -> F32:
        """[C+1,D] what is subtracted; the last row serves cameras never seen."""
        weight = (self.counts + self.prior)[:, None]
        drawn = (self.sums + self.prior * self.common) / weight
        return np.vstack([drawn, self.common]).astype(np.float32)

    def centred(self, rows: Rows, camids: I64) -> Rows:
        """Subtract from each unit row its camera's mean; from a stranger's the common one."""
        places = np.minimum(np.searchsorted(self.camids, camids), len(self.camids) - 1)
        places = np.where(self.camids[places] == camids, places, len(self.camids))
        return rows.minus(self.offsets, places)


def _ages(places: I64, seen: I64) -> I64:
    """How many rows of its camera came after each row."""
    order = np.argsort(places, kind="stable")
    ages = np.empty_like(places)
    ages[order] = np.repeat(np.cumsum(seen), seen) - 1 - np.arange(len(places))
    return ages

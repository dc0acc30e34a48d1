"""What each camera's images have in common: a mean of unit rows for every camera."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from murank_kernels._types import F32, F64, I64

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class CameraMeans:
    """Means of unit rows, each drawn towards the common mean by `prior` rows of it."""

    camids: I64  # [C] ascending
    counts: F64  # [C] rows seen, fewer where older rows count less
    sums: F64  # [C,D] of those rows
    prior: float

    @classmethod
    def of(cls, rows: F32, camids: I64, prior: float) -> "CameraMeans":
        """Sum the unit rows [N,D] of each camera."""
        known, places = np.unique(camids, return_inverse=True)
        sums = np.zeros((len(known), rows.shape[1]))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            members = np.zeros((len(known), len(rows[part])))
            members[places[part], np.arange(len(rows[part]))] = 1
            sums += members @ rows[part].astype(np.float64)
        return cls(known, np.bincount(places).astype(np.float64), sums, prior)

    def with_rows(self, rows: F32, camids: I64, half_life: float | None) -> "CameraMeans":
        """Add rows in their order; `half_life` rows of its camera later, a row counts half."""
        known = np.union1d(self.camids, camids)
        counts, sums = np.zeros(len(known)), np.zeros((len(known), rows.shape[1]))
        old = np.searchsorted(known, self.camids)
        counts[old], sums[old] = self.counts, self.sums
        for camera in np.unique(camids):
            own = rows[camids == camera].astype(np.float64)
            place = np.searchsorted(known, camera)
            ages = np.arange(len(own) - 1, -1, -1.0)
            share = np.ones(len(own)) if half_life is None else 0.5 ** (ages / half_life)
            kept = 1.0 if half_life is None else 0.5 ** (len(own) / half_life)
            counts[place] = kept * counts[place] + share.sum()
            sums[place] = kept * sums[place] + share @ own
        return CameraMeans(known, counts, sums, self.prior)

    @cached_property
    def common(self) -> F64:
        """[D] mean of all rows."""
        mean: F64 = self.sums.sum(axis=0) / self.counts.sum()
        return mean

    @cached_property
    def _offsets(self) -> F32:
        """[C+1,D] what is subtracted; the last row serves cameras never seen."""
        weight = (self.counts + self.prior)[:, None]
        drawn = (self.sums + self.prior * self.common) / weight
        return np.vstack([drawn, self.common]).astype(np.float32)

    def centred(self, rows: F32, camids: I64) -> F32:
        """Subtract from each unit row its camera's mean; from a stranger's the common one."""
        places = np.minimum(np.searchsorted(self.camids, camids), len(self.camids) - 1)
        places = np.where(self.camids[places] == camids, places, len(self.camids))
        centred: F32 = rows - self._offsets[places]
        return centred

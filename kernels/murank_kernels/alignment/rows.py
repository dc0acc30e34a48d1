"""Rows of features as an alignment works on them: here in host memory, elsewhere on a GPU."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from murank_kernels._types import F32, F64, I64
from murank_kernels.alignment import mutual
from murank_kernels.alignment.mutual import Lists, Pairs, Two
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled
from murank_kernels.loops.parallel import Progress

ROUNDING = 1e-6
"""Length below which what is left of a unit row is rounding: it is its camera's mean."""

AT_ONCE = 4096  # rows whose float64 copies are held
_ROWS_A_TASK = 1024
_FEW = 8  # rows for which starting workers costs more than the product


class Rows(Protocol):
    """N rows of D values. Sums in float64; what is returned as F64 is in host memory."""

    @property
    def dim(self) -> int:
        """D."""

    def sums(self, places: I64, weights: F64, num_places: int) -> F64:
        """[num_places,D] weighted sums of the rows of each place."""

    def minus(self, offsets: F32, places: I64) -> "Rows":
        """Subtract offsets[places[i]] from row i."""

    def unit_or(self, instead: "Rows", least: float = ROUNDING) -> "Rows":
        """At unit length; rows that are no longer than `least` are taken from `instead`."""

    def times(self, matrix: F32) -> "Rows":
        """Rows @ matrix [D,P]."""

    def lengths(self) -> F64:
        """Of each row, [N]."""

    def moments(self) -> F64:
        """[D,D] sum of x x' over the rows x."""

    def gap_moments(self, pairs: Pairs) -> F64:
        """[D,D] weighted sum of d d' over the differences d of the pairs."""

    def gap_squares(self, pairs: Pairs) -> F64:
        """[P] squared lengths of these differences, without weights."""

    def nearest_between(
        self, kept: I64, twos: list[Two], length: int, progress: Progress | None
    ) -> list[tuple[Lists, Lists]]:
        """See `Searchable`."""

    def give(self) -> Any:
        """What a caller gets whose own rows are there."""


@dataclass(frozen=True)
class HostRows:
    """Implements Rows."""

    values: F32  # [N,D]

    @property
    def dim(self) -> int:
        """D."""
        return int(self.values.shape[1])

    def sums(self, places: I64, weights: F64, num_places: int) -> F64:
        """By products with a few rows of weights at a time."""
        total = np.zeros((num_places, self.dim))
        for part in _parts(len(self.values)):
            shares = np.zeros((num_places, len(self.values[part])))
            shares[places[part], np.arange(shares.shape[1])] = weights[part]
            total += shares @ self.values[part].astype(np.float64)
        return total

    def minus(self, offsets: F32, places: I64) -> "HostRows":
        """Some rows a worker."""
        out = np.empty_like(self.values)

        def some(part: slice) -> None:
            np.subtract(self.values[part], offsets[places[part]], out=out[part])

        _in_parts(some, len(out))
        return HostRows(out)

    def unit_or(self, instead: Rows, least: float = ROUNDING) -> "HostRows":
        """Some rows a worker."""
        assert isinstance(instead, HostRows)  # noqa: S101
        out = np.empty_like(self.values)

        def some(part: slice) -> None:
            lengths = _lengths(self.values[part])
            alone = lengths <= least
            lengths[alone] = 1
            np.divide(self.values[part], lengths[:, None], out=out[part], casting="same_kind")
            out[part][alone] = instead.values[part][alone]

        _in_parts(some, len(out))
        return HostRows(out)

    def times(self, matrix: F32) -> "HostRows":
        """Some rows a worker; a few in this thread."""
        out = np.empty((len(self.values), matrix.shape[1]), np.float32)
        if len(out) <= _FEW:
            _few_products(self.values, matrix, out)
        else:
            _in_parts(lambda part: np.matmul(self.values[part], matrix, out=out[part]), len(out))
        return HostRows(out)

    def lengths(self) -> F64:
        """In float64."""
        return _lengths(self.values)

    def moments(self) -> F64:
        """By BLAS's symmetric products."""
        total = np.zeros((self.dim, self.dim))
        for part in _parts(len(self.values)):
            some = self.values[part].astype(np.float64)
            total += some.T @ some
        return total

    def gap_moments(self, pairs: Pairs) -> F64:
        """By BLAS's symmetric products."""
        total = np.zeros((self.dim, self.dim))
        for part in _parts(len(pairs.rows)):
            gaps = self._gaps(pairs, part)
            gaps *= np.sqrt(pairs.weights[part])[:, None]
            total += gaps.T @ gaps
        return total

    def gap_squares(self, pairs: Pairs) -> F64:
        """Some at a time."""
        found = np.empty(len(pairs.rows))
        for part in _parts(len(pairs.rows)):
            gaps = self._gaps(pairs, part)
            np.einsum("ij,ij->i", gaps, gaps, out=found[part])
        return found

    def _gaps(self, pairs: Pairs, part: slice) -> F64:
        first, second = pairs.rows[part].T
        gaps: F64 = self.values[first].astype(np.float64) - self.values[second]
        return gaps

    def nearest_between(
        self, kept: I64, twos: list[Two], length: int, progress: Progress | None
    ) -> list[tuple[Lists, Lists]]:
        """By tiles."""
        rows = np.ascontiguousarray(self.values[kept])
        return mutual.nearest_between(rows, twos, length, progress)

    def give(self) -> F32:
        """The array."""
        return self.values


def _parts(count: int) -> list[slice]:
    return [slice(*part) for part in parallel.row_ranges(count, AT_ONCE)]


def _in_parts(work: Any, count: int) -> None:
    """Do some rows a worker, or all of a few here."""
    if count <= _FEW:
        work(slice(0, count))
        return
    parts = [slice(*part) for part in parallel.row_ranges(count, _ROWS_A_TASK)]
    parallel.run(work, parts, "camera alignment")


def _lengths(rows: F32) -> F64:
    squares: F64 = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return np.sqrt(squares)


@compiled(fastmath={"contract"})
def _few_products(rows: F32, matrix: F32, out: F32) -> None:
    """Products of a few rows with a matrix, in this thread."""
    for i in range(rows.shape[0]):
        out[i] = 0
        for t in range(matrix.shape[0]):
            value = rows[i, t]
            for p in range(matrix.shape[1]):
                out[i, p] += value * matrix[t, p]

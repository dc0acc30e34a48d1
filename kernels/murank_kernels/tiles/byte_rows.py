"""Rows kept once more with a byte a value, which tell what can be among the nearest of a query.

A row x is scale * codes + rest, a query q likewise with more bits, so that x q lies within
|rest| |q| + |x| |rest of q| of a product of whole numbers, which is exact. What these bounds leave
in doubt, few rows, is measured on the rows themselves: the nearest found are the nearest. A quarter
of the bytes is read, which is what the search of a large gallery waits for.

Floor for N rows of D values: N D bytes, read once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import F32, I64
from murank_kernels.loops.compiled import compiled
from murank_kernels.tiles.distances import squared_distance

_LARGEST = 127  # of a code
_WORD = 32767  # of a query's value, unless sums of so many values do not allow it
_TINY = np.float32(1e-30)  # the inverse of what is below may be infinite
_ROUNDING = 2.0**-24  # of float32
I8 = NDArray[np.int8]
I16 = NDArray[np.int16]


class ByteRows(NamedTuple):
    """What is kept of rows beside the rows."""

    codes: I8  # [n,D]
    scales: F32  # [n]
    rests: F32  # [n] length of what the codes leave out
    lengths: F32  # [n] of the rows

    @classmethod
    def zeros(cls, num_rows: int, dim: int) -> "ByteRows":
        """Of rows that are 0."""
        return cls(
            np.zeros((num_rows, dim), np.int8),
            *(np.zeros(num_rows, np.float32) for _ in range(3)),
        )

    def set(self, places: I64, rows: F32) -> None:
        """Take in the rows [n,D] at these places of a block that was changed there."""
        _encode(rows, places, *self)

    def first(self, count: int) -> "ByteRows":
        """The first rows, as views."""
        return ByteRows(
            self.codes[:count], self.scales[:count], self.rests[:count], self.lengths[:count]
        )

    def bounds(self, query: "ByteQuery", wanted: NDArray[np.bool_], low: F32, high: F32) -> None:
        """Write between what the squared distance of each row lies; infinity where not wanted."""
        _bounds(*self, *query, wanted, low, high)


class ByteQuery(NamedTuple):
    """A query as whole numbers."""

    words: I16  # [D]
    scale: float
    rest: float  # length of what the words leave out
    length: float

    @classmethod
    def of(cls, feature: F32) -> "ByteQuery":
        """Encode a feature [D]."""
        exact = feature.astype(np.float64)
        most = min(_WORD, (2**31 - 1) // (_LARGEST * max(1, len(feature))))
        scale = float(np.abs(exact).max(initial=0)) / most
        words = np.rint(exact / scale) if scale > 0 else np.zeros(len(exact))
        rest = float(np.linalg.norm(exact - words * scale))
        return cls(words.astype(np.int16), scale, rest, float(np.linalg.norm(exact)))


@compiled(fastmath={"reassoc", "contract", "nsz", "nnan"})
def _encode(rows: F32, places: I64, codes: I8, scales: F32, rests: F32, lengths: F32) -> None:
    for p in range(places.shape[0]):
        row, out = rows[places[p]], codes[places[p]]
        largest = np.float32(0)
        for t in range(row.shape[0]):
            largest = max(largest, abs(row[t]))
        scale = largest / np.float32(_LARGEST)
        once = np.float32(1) / scale if scale > _TINY else np.float32(0)
        rest = norm = 0.0
        for t in range(row.shape[0]):
            code = np.rint(row[t] * once)
            code = max(min(code, np.float32(_LARGEST)), np.float32(-_LARGEST))
            out[t] = np.int8(code)
            left = np.float64(row[t]) - np.float64(scale) * np.float64(code)
            rest += left * left
            norm += np.float64(row[t]) * np.float64(row[t])
        scales[places[p]] = scale
        rests[places[p]], lengths[places[p]] = np.sqrt(rest), np.sqrt(norm)


@compiled
def _product(codes: I8, words: I16) -> np.int32:
    """Exact, as the factors are small enough; cut to 32 bits, so that vector instructions do it."""
    total = np.int32(0)
    for t in range(codes.shape[0]):
        total += np.int32(codes[t]) * np.int32(words[t])
    return np.int32(total)


@compiled
def _bounds(
    codes: I8, scales: F32, rests: F32, lengths: F32, words: I16, scale: float, rest: float,
    length: float, wanted: NDArray[np.bool_], low: F32, high: F32,
) -> None:  # fmt: skip
    # Rounding of what is compared with the bounds: a sum of D squares in float32, its root, and
    # the float32 of lengths, rests and bounds.
    rounding = (words.shape[0] + 16) * _ROUNDING
    for i in range(codes.shape[0]):
        low[i] = high[i] = np.float32(np.inf)
        if wanted[i]:
            product = np.float64(scales[i]) * scale * _product(codes[i], words)
            own, both = np.float64(lengths[i]), np.float64(lengths[i]) + length
            squared = own * own + length * length - 2 * product
            doubt = 2 * (rests[i] * (length + rest) + own * rest) + rounding * both * both
            low[i], high[i] = squared - doubt, squared + doubt


@compiled
def squared_of(rows: F32, places: I64, feature: F32, out: F32) -> None:
    """Squared distance of the rows at these places to one feature."""
    for p in range(places.shape[0]):
        out[p] = squared_distance(rows[places[p]], feature)

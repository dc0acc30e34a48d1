"""Loops over a row that compilers turn into vector instructions.

A running float minimum or maximum stays scalar, because its result for NaN depends on the order.
Distances are never negative or NaN, and for such numbers the order of the bits, read as integers,
is the order of the values: the loops below run on those.
"""

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import F32, I32
from murank_kernels.loops.compiled import compiled

WORD = 8  # flags tested at once, and entries looked at where one of them is set


@compiled
def update_maxima(row: I32, column_max: I32) -> np.int32:
    """Raise each column's maximum to the row's value; return the row's largest. Bits of floats."""
    largest = np.int32(0)
    for t in range(row.shape[0]):
        largest = max(largest, row[t])
        column_max[t] = max(column_max[t], row[t])
    return largest


@compiled
def any_not_above(row: I32, bound: np.int32) -> np.bool_:
    """Whether any value is at or below the bound. Bits of floats."""
    found = np.uint32(0)
    for t in range(row.shape[0]):
        found = np.uint32(found | np.uint32(row[t] <= bound))
    return np.bool_(found != 0)


@compiled
def flag_not_above(row: F32, bounds: F32, bound: np.float32, flags: NDArray[np.uint8]) -> None:
    """flags[t] = the value is at or below its own bound or the common one."""
    for t in range(row.shape[0]):
        flags[t] = (row[t] <= bounds[t]) | (row[t] <= bound)


@compiled
def flag_below(row: F32, bound: np.float32, flags: NDArray[np.uint8]) -> None:
    """flags[t] = the value is below the bound."""
    for t in range(row.shape[0]):
        flags[t] = row[t] < bound


@compiled
def make_flags(length: int) -> NDArray[np.uint8]:
    """Flags for a row, a whole number of words; those past its end stay 0."""
    return np.zeros((length + WORD - 1) // WORD * WORD, np.uint8)

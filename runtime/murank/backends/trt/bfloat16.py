"""bfloat16, which NumPy does not know: float32 without the lower half of its bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Two bytes that nobody takes for numbers, since integers of them would be.
BFLOAT16: np.dtype[Any] = np.dtype([("bfloat16", np.uint16)])
_HALF = np.uint32(0x7FFF)  # of the last bit that is kept, less one


def to_bfloat16(array: NDArray[Any]) -> NDArray[Any]:
    """float32 of any shape -> BFLOAT16, to the nearest, ties to even; NaN stays NaN."""
    if array.dtype != np.float32:
        raise TypeError(f"float32 becomes bfloat16, {array.dtype} does not")
    bits = np.ascontiguousarray(array).view(np.uint32)
    kept = bits >> 16
    with np.errstate(over="ignore"):  # a NaN of all ones, which is replaced below
        rounded = (bits + (_HALF + (kept & np.uint32(1)))) >> 16
    # The carry could make a NaN infinite, or a number: its payload is cut, and kept from being 0.
    narrow = np.where(np.isnan(array), kept | np.uint32(0x40), rounded).astype(np.uint16)
    return narrow.view(BFLOAT16).reshape(array.shape)


def to_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """BFLOAT16 of any shape -> float32, exactly."""
    bits = np.ascontiguousarray(array).view(np.uint16).astype(np.uint32) << 16
    return bits.view(np.float32).reshape(array.shape)


def type_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a type, for people."""
    return "bfloat16" if dtype == BFLOAT16 else str(dtype)

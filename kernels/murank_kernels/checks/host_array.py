"""Anything array-like in host memory as NumPy's, whichever library made it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# What libraries raise about things that are no array, or of a kind that NumPy has not.
NO_ARRAY = (ValueError, TypeError, RuntimeError)
_TO_HOST = ("cpu", "get", "copy_to_host")  # PyTorch, CuPy, Numba


def host_array(value: Any) -> NDArray[Any]:
    """Return an array of what is one, a list, a tensor of PyTorch or a column of pandas.

    bfloat16, which NumPy lacks, becomes float32. Raises one of NO_ARRAY.
    """
    given = np.asarray(plain_tensor(value))
    return given.astype(np.float32) if given.dtype.name == "bfloat16" else given  # of ml_dtypes


def plain_tensor(value: Any) -> Any:
    """Return a tensor of PyTorch without its gradient, bfloat16 as float32; all else as it is."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach()
    return tensor.float() if str(tensor.dtype).endswith("bfloat16") else tensor


def on_device(value: Any) -> bool:
    """Whether an array is in a GPU's memory (CuPy, PyTorch, Numba)."""
    try:
        return hasattr(value, "__cuda_array_interface__")
    except (*NO_ARRAY, KeyError):  # it has one, but not with a gradient, or not for its type
        return True


def copied_to_host(value: Any) -> Any:
    """Return an array that is in a GPU's memory as one in host memory; all else as it is."""
    if not on_device(value):
        return value
    value = plain_tensor(value)
    copy = next((getattr(value, name) for name in _TO_HOST if hasattr(value, name)), None)
    return value if copy is None else copy()

"""A kernel that tells what it was given: whether arguments arrive as they are handed over.

Numba promises nothing about how its kernels take arguments (see `parameters.as_words`), and an
array that is read wrongly is a wrong result or a crash somewhere else. So one small launch comes
before all others.
"""

from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from murank_kernels._exceptions import DeviceUnavailableError
from murank_kernels._types import F32, F64, I32
from murank_kernels.cuda.kernel import kernel
from murank_kernels.cuda.parameters import as_words

FITTING = "numba-cuda 0.30 and CuPy 14"  # what the launch was written for
TOLD = (2, 3, 6, 5.5, 1 << 40, 1, 4, 7, 0.5, 0.25, 12, 4)


@kernel("void(f4[:,::1], i8, b1, i4[::1], f4, f8[::1], f8)")
def tell(
    matrix: F32,
    number: int,
    flag: bool,
    vector: I32,
    single: np.float32,
    out: F64,
    double: float,
) -> None:
    """Write to `out` what is known of the arrays, last values, and the numbers. One thread."""
    out[0] = matrix.shape[0]
    out[1] = matrix.shape[1]
    out[2] = matrix.size
    out[3] = matrix[matrix.shape[0] - 1, matrix.shape[1] - 1]
    out[4] = number
    out[5] = 1 if flag else 0
    out[6] = vector.shape[0]
    out[7] = vector[vector.shape[0] - 1]
    out[8] = single
    out[9] = double
    out[10] = matrix.strides[0]
    out[11] = matrix.strides[1]


def given(xp: Any) -> tuple[Any, ...]:
    """Arguments of `tell`, which then writes TOLD to the sixth."""
    matrix = np.arange(0.5, 6, dtype=np.float32).reshape(2, 3)
    vector = np.arange(4, 8, dtype=np.int32)
    out = np.zeros(len(TOLD))
    return (
        xp.asarray(matrix), 1 << 40, True, xp.asarray(vector), np.float32(0.5), xp.asarray(out),
        0.25,
    )  # fmt: skip


def check(cupy: Any, start: Callable[..., None], is_fault: Callable[[BaseException], bool]) -> None:
    """Launch `tell`, which CuPy has loaded as `start`, and wait for what it tells.

    Raises DeviceUnavailableError if that is not what it was given, or if the GPU fails at it.
    """
    arguments = given(cupy)
    try:
        start((1,), (1,), as_words(tell.parameters, arguments), 0)
        told = tuple(cupy.asnumpy(arguments[5]).tolist())
    except Exception as error:
        if not is_fault(error):
            raise
        raise _misfit(cupy, f"{type(error).__name__}: {error}") from error
    if told != TOLD:
        raise _misfit(cupy, f"it was given other values than {told}")


def _misfit(cupy: Any, what: str) -> DeviceUnavailableError:
    return DeviceUnavailableError(
        f"device='cuda' fails at a first, small kernel ({what}): launches were written for "
        f"{FITTING}, here are numba-cuda {metadata.version('numba-cuda')} and CuPy "
        f"{cupy.__version__}; install those, or use device='cpu'"
    )

"""Arrays that stay in their file: pages are read when they are needed, and can be given back."""

import mmap
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 16 << 20  # bytes looked at before their pages are given back


def mapped_array(
    file: IO[bytes], offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any
) -> NDArray[Any]:
    """Map an array of an open file, which may be closed afterwards.

    What is written to it stays in memory. It may stand at an odd address. Whoever cuts the file off
    meanwhile ends this process: rename a new one over it. OSError, ValueError: it does not fit.
    """
    whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return np.ndarray(shape, dtype, whole, offset, order=order)


def crc_of(array: NDArray[Any], crc: int = 0) -> int:
    """Return the CRC-32 of what is mapped, after that of what comes before it."""
    for part in parts(array):
        crc = zlib.crc32(part, crc)
    return crc


def parts(array: NDArray[Any]) -> Iterator[memoryview]:
    """Yield the bytes of any array, some at a time; pages of a file are given back in between."""
    whole = np.asarray(array, order="A").reshape(-1, order="A").view(np.uint8)
    for start in range(0, len(whole), _AT_ONCE):
        yield whole[start : start + _AT_ONCE].data
        let_go(array)


def let_go(array: NDArray[Any]) -> None:
    """Give back the memory that an array takes of a mapped file; others stay as they are.

    What has been written to it is lost.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)

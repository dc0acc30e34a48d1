"""How much is done at once, from the memory that is free."""

from collections.abc import Callable
from typing import TypeVar

from murank_kernels._exceptions import DeviceUnavailableError, InvalidInputError
from murank_kernels.cuda.arrays import Arrays
from murank_kernels.cuda.kernel import SHARED_BYTES, words
from murank_kernels.cuda.set_kernels import set_words
from murank_kernels.tiles.neighbors import SLACK

BLOCK_BYTES = 1 << 30  # of distances made at a time: launches cost nothing beside such a block
TF32_SLACK = 16  # as SLACK, where factors are rounded to 10 bits of mantissa
MOST_ROWS = 4096  # of a tile: enough work for the largest GPUs
LEAST_ROWS = 32  # fewer would make a product of nothing but overhead
LONGEST = 1024  # list that is kept sorted in shared memory
SHARE = 0.8  # of the free memory that is planned with; allocators round up and fragments stay
T = TypeVar("T")


def slack(*, tf32: bool) -> int:
    """Entries of a list beyond those asked for, so that near ties survive rounded products."""
    return TF32_SLACK if tf32 else SLACK


def check_lengths(lengths: dict[str, int], num_rows: int, *, tf32: bool) -> None:
    """Raise InvalidInputError if a neighbour list would not fit shared memory."""
    most = LONGEST - slack(tf32=tf32) - 1
    for name, length in lengths.items():
        if min(length, num_rows) > most:
            raise InvalidInputError(
                f"{name} is {length}, device='cuda' takes at most {most}; use device='cpu'"
            )


def check_expansion(k1: int, num_rows: int) -> None:
    """Raise InvalidInputError if expanded sets would not fit shared memory."""
    width = min(k1 + 1, num_rows) * (1 + min(round(k1 / 2) + 1, num_rows))
    if words(set_words(width)) > SHARED_BYTES:
        raise InvalidInputError(f"k1 is {k1}, device='cuda' takes at most 108; use device='cpu'")


def tile_rows(free: int, num_rows: int, list_length: int, num_lists: int) -> int:
    """Rows of a tile [rows, N]: as many as fit twice (it is transposed) beside the lists.

    Raises DeviceUnavailableError if not even small tiles fit.
    """
    beside = num_rows * (list_length * (8 * num_lists + 20) + 16)  # 20: while lists are refined
    one_row = 2 * 4 * num_rows
    least = min(LEAST_ROWS, num_rows)
    rows = (int(SHARE * free) - beside) // one_row
    if rows < least:
        needed = (beside + least * one_row) / SHARE
        raise DeviceUnavailableError(
            f"the neighbour search of {num_rows} rows needs {_gib(needed)} GiB of GPU memory, "
            f"{_gib(free)} GiB are free; free some of it, or use device='cpu'"
        )
    return min(rows, MOST_ROWS, num_rows)


def block_rows(free: int, num_gallery: int) -> int:
    """Query rows [rows, G] made at a time: two arrays of them, in a quarter of what is free."""
    return max(1, min(BLOCK_BYTES // (4 * num_gallery), free // 4 // (8 * num_gallery)))


def rows_beside(free: int, num_rows: int) -> int:
    """Rows of a tile [rows, N] beside blocks that it adds to: an eighth of what is free."""
    return max(1, min(MOST_ROWS, free // 8 // (4 * num_rows)))


def keeps_measured(free: int, num_query: int, num_gallery: int) -> bool:
    """Whether query-gallery distances are kept from the search, instead of made again."""
    return 4 * num_query * num_gallery <= free // 4


def with_smaller_tiles(gpu: Arrays, rows: int, search: Callable[[int], T]) -> T:
    """Search with tiles of `rows` rows, with half as many after an allocation that did not fit.

    Somebody else may take memory between the plan and the search.
    """
    while True:
        try:
            return search(rows)
        except gpu.out_of_memory:
            if rows <= LEAST_ROWS:
                raise
        # Out of the handler, which holds on to the failed search's arrays.
        gpu.release()
        rows = max(LEAST_ROWS, rows // 2)


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f}"

"""Three rankings from two: of all cameras, the own camera first, the others first."""

from dataclasses import dataclass

import numpy as np

from murank_kernels._types import F32, I32
from murank_kernels.loops import parallel
from murank_kernels.loops.compiled import compiled
from murank_kernels.tiles.lists import FAR, NOBODY
from murank_kernels.tiles.neighbors import Neighbors


@dataclass(frozen=True)
class CameraLists:
    """Neighbour lists [N,L] int32 of each row, nearest first within what comes first."""

    all: I32  # by distance alone
    intra: I32  # the row's own camera first, itself included
    inter: I32  # the other cameras first


@compiled
def append_list(first: I32, second: I32, start: int, stop: int, out: I32) -> None:
    """Fill rows of `out` from `first`, then from `second`."""
    for i in range(start, stop):
        count = 0
        for source in (first, second):
            for a in range(source.shape[1]):
                if count < out.shape[1] and source[i, a] != NOBODY:
                    out[i, count] = source[i, a]
                    count += 1


@compiled
def merge_lists(
    near: F32, who: I32, other_near: F32, other_who: I32, start: int, stop: int, out: I32
) -> None:
    """Merge two lists of each row by (distance, index)."""
    length = out.shape[1]
    for i in range(start, stop):
        a = b = 0
        for c in range(length):
            d = near[i, a] if a < length else FAR
            e = other_near[i, b] if b < length else FAR
            j = who[i, a] if a < length else NOBODY
            k = other_who[i, b] if b < length else NOBODY
            if d < e or (d == e and j < k):
                out[i, c] = j
                a += 1
            else:
                out[i, c] = k
                b += 1


def camera_lists(found: Neighbors) -> CameraLists:
    """Fill up each camera's list from the other, and merge both."""
    lists = CameraLists(*(np.empty_like(found.indices) for _ in range(3)))

    def rows(part: tuple[int, int]) -> None:
        append_list(found.indices, found.other_indices, *part, lists.intra)
        append_list(found.other_indices, found.indices, *part, lists.inter)
        merge_lists(
            found.distances, found.indices, found.other_distances, found.other_indices,
            *part, lists.all,
        )  # fmt: skip

    parallel.run(rows, parallel.row_ranges(len(found.indices), 1024), "camera lists")
    return lists

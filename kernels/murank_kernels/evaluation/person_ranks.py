"""Ranks that count people, not images: each person stands where its first image does."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import I64


def person_rank(row: NDArray[Any], first_match: int, dropped: I64, pids: I64) -> int:
    """Return the rank, from 1, of a query's person among the people of its ranking.

    Parameters
    ----------
    row : [G] distances of the query
    first_match : gallery index of the nearest match
    dropped : gallery indices that are not in the ranking
    pids : [G]
    """
    distance = row[first_match]
    before = row < distance
    before[:first_match] |= row[:first_match] == distance
    before[dropped] = False
    return len(np.unique(pids[before])) + 1

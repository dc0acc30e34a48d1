"""Single-gallery-shot CMC: one random gallery item stands for each person."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import F64, I64


def single_gallery_shot(
    row: NDArray[Any],
    matches: I64,
    order: I64,
    sorted_pids: I64,
    pid: int,
    *,
    max_rank: int,
    num_repeats: int,
    seed: tuple[int, int],
) -> F64:
    """CMC [max_rank] of one query, the mean over random draws.

    Parameters
    ----------
    row : [G] distances of the query
    matches : gallery indices of its matches, at least one
    order, sorted_pids : gallery indices grouped by pid, and the pid of each
    pid : the query's
    """
    starts = np.flatnonzero(np.r_[True, sorted_pids[1:] != sorted_pids[:-1]])
    counts = np.diff(np.r_[starts, len(sorted_pids)])
    others = sorted_pids[starts] != pid
    random = np.random.default_rng(seed)
    share = random.random((num_repeats, int(others.sum())))
    drawn = order[starts[others] + (share * counts[others]).astype(np.int64)]
    match = matches[random.integers(len(matches), size=(num_repeats, 1))]
    before = (row[drawn] < row[match]) | ((row[drawn] == row[match]) & (drawn < match))
    place = before.sum(axis=1) + 1
    hits: F64 = (np.arange(1, max_rank + 1) >= place[:, None]).mean(axis=0)
    return hits

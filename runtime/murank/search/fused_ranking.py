"""From a query's candidates and their mu to candidate matches."""

import numpy as np
from numpy.typing import NDArray

from murank.engine.deadline import Pace
from murank.engine.results import Match
from murank.engine.stopwatch import StageWatch
from murank.rerank.methods import kernel_errors
from murank.search.query import Retrieved


def rank(
    retrieved: Retrieved,
    mu: NDArray[np.float64],
    pace: Pace,
    watch: StageWatch,
    *,
    top_k: int,
    is_reranked: bool,
) -> tuple[Match, ...]:
    """Fuse mu [n] of the first n candidates, and return the first `top_k` of the gallery.

    Ordered by the method's distance if `is_reranked`, else by the fused distance; ties: lower
    index first.
    """
    query, scored = retrieved.query, retrieved.candidates[: len(mu)]
    with kernel_errors():
        if len(mu):
            with pace.timed("fuse", watch):
                query = query.fused(mu.astype(np.float32), scored)
        with pace.timed("rerank", watch):
            distances, indices = (query.reranked_top if is_reranked else query.nearest)(top_k)
            before = retrieved.query.distances()[indices]
    known = dict(zip(scored.tolist(), mu.tolist(), strict=True))
    rows = zip(indices.tolist(), distances.tolist(), before.tolist(), strict=True)
    return tuple(Match(i, distance, known.get(i), first) for i, distance, first in rows)

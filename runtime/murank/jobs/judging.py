"""What the MLLM says about pairs that an alignment takes as one person."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank.crew.here import Here
from murank.engine.pair_orders import Order
from murank.jobs.asked_pairs import Pairs
from murank.jobs.desk import Desk
from murank.jobs.engine_work import EngineWork
from murank.jobs.job_log import JobLog
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.pair_skips import Skip
from murank.jobs.score import MuStage, score
from murank.jobs.skip_limit import SkipLimit
from murank.jobs.workspace import MU_FILES, InMemory

_STAGE = MuStage("pairs", "pairs", MU_FILES)


@dataclass(frozen=True, eq=False)
class Judged:
    """Pairs that the MLLM was asked about, those that matter most first."""

    places: NDArray[np.int64]  # [n] which ones
    mu: NDArray[np.floating]  # [n]; 0 where there is no answer
    skips: list[Skip]  # images that lack answers

    def weighed(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights [P] of all pairs, times (1 - mu)^2: no answer changes nothing."""
        weighed = weights.copy()
        weighed[self.places] *= (1 - self.mu.astype(np.float64)) ** 2
        return weighed


def judge_pairs(
    pairs: NDArray[np.int64],
    shares: NDArray[np.float64],
    paths: Sequence[Path],
    engine: LazyEngine,
    *,
    count: int,
    order: Order,
    strict: bool,
    report: JobLog,
) -> Judged:
    """Ask about the `count` pairs [P,2] of `paths` that have the largest shares [P].

    Raises
    ------
    InputError
        No pair has an answer; with `strict`, one has none.
    """
    places = np.argsort(-shares, kind="stable")[:count]
    first, second = pairs[places].T
    # A pair without an answer gets half its distance as mu: here that is none.
    nowhere = np.zeros((len(places), 1), np.float32)
    asked = Pairs([paths[row] for row in first], paths, second[:, None], nowhere)
    asked.check(strict=strict)
    desk = Desk(engine, report, Here(lambda: EngineWork(engine)), skips=SkipLimit(strict=strict))
    scored = score(_STAGE, asked, desk, InMemory(), order=order, features="")
    return Judged(places, scored.mu.mu[:, 0], scored.skips)

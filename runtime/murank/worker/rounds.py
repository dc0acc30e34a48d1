"""Queries in progress: a round scores the pairs that several of them have come to, in one run."""

from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any

from murank.worker.work import Work


class Rounds:
    """The queries that have begun. Used by the worker's thread alone."""

    def __init__(self, most: int) -> None:
        """`most` at a time; 1: none with another."""
        self._most = most
        self.works: list[Work[Any]] = []
        self.pairs = 0  # scored so far

    def has_room(self, end: float) -> bool:
        """Whether another may begin: up to `most`, and as many that end before one of those."""
        count = len(self.works)
        if count < self._most:
            return True
        return count < 2 * self._most and end < max(work.end for work in self.works)

    def begin(self, work: Work[Any]) -> None:
        """Do the first step of a query."""
        self.works.append(work)
        self._step(work, None)

    def go_on(self) -> None:
        """One run of the decoder for the query that ends first, and those it can take along."""
        for work in [one for one in self.works if one.answer.is_unwanted]:
            self.works.remove(work)
            work.fail(CancelledError())
        self.works.sort(key=lambda one: one.order)
        paused = [one for one in self.works if one.wanted is None]
        for work in paused:
            self._step(work, None)
        together = self._together()
        if not together:
            return
        batches = [work.wanted for work in together if work.wanted is not None]
        try:
            answers = batches[0].scorer.logits_together([(b.prefix, b.tokens) for b in batches])
        except Exception as error:  # noqa: BLE001  of all that were in the run
            for work in together:
                self.works.remove(work)
                work.fail(error)
            return
        self.pairs += sum(len(one.tokens) for one in batches)
        for work, logits in zip(together, answers, strict=True):
            self._step(work, logits)

    def _step(self, work: Work[Any], logits: Any) -> None:
        if work.step(logits):
            self.works.remove(work)

    def _together(self) -> Sequence[Work[Any]]:
        """Return queries whose pairs fit into one run with those of the first."""
        ready = [(work, work.wanted) for work in self.works if work.wanted is not None]
        if not ready:
            return []
        scorer, count = ready[0][1].scorer, len(ready[0][1].tokens)
        # One that has far fewer or more would be asked for nothing, or keep the first waiting.
        alike = [
            work
            for work, batch in ready
            if batch.scorer is scorer and count / 2 <= len(batch.tokens) <= 2 * count
        ]
        longest = max(len(work.wanted.tokens) for work in alike if work.wanted is not None)
        return alike[: scorer.queries_at_once(longest)]

"""The worker: what is asked of it by many waits in one line, and one thread does it."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from murank._exceptions import Closed, InputError, Overloaded
from murank.checks.text import warn
from murank.engine.deadline import check_deadline
from murank.engine.engine import Engine
from murank.engine.results import Ranked, ranked
from murank.engine.steps import Steps, steps_of
from murank.gallery.gallery import Gallery
from murank.gallery.gallery_result import AddResult, GallerySearchResult
from murank.images import ImageSource
from murank.images.arguments import check_images, check_whole
from murank.worker.fair_share import FairShare
from murank.worker.rounds import Rounds
from murank.worker.waiting_line import WaitingLine
from murank.worker.warming import warm
from murank.worker.work import Answer, Work

T = TypeVar("T")
QUEUE = 32
_TOGETHER = 8  # queries in progress, whose pairs may be scored in one run
_NO_END_MS = 1e12  # a deadline that is never met, for what has none: it is asked a few at a time
_NEW = 1 / 8  # weight of the newest in what a query costs
_LAST_STEP = 30.0  # seconds that a step which was begun may take; one that takes longer hangs
_CLOSED = "the worker was closed: make another"
_DROPPED = "the worker was closed before this was done: ask another"


@dataclass(frozen=True)
class WorkerStats:
    """What a worker is doing, and has done."""

    waiting: int  # not begun
    running: int  # queries that have begun
    pairs: int  # scored since the start


class Worker:
    """One thread that does what is asked for of an engine and a gallery, by deadline.

    Queries that are in progress at once have their pairs scored in the same runs of the decoder.
    Ingest goes below queries, with a fifth of the time while both wait. What its caller cancelled
    is dropped before its next step. Every method returns an `Answer`: `await` it, or ask for its
    `result()`. A context manager.

    Parameters
    ----------
    engine
        Nobody else should ask it anything meanwhile, as that would wait and make others late.
    gallery
        For `search` and `add`; None: there is none.
    queue
        Pieces of work that may wait; more are refused.
    together
        Whether queries share runs; else they are done one after the other.
    """

    def __init__(
        self, engine: Engine, gallery: Gallery | None = None, *, queue: int = QUEUE,
        together: bool = True,
    ) -> None:  # fmt: skip
        self.engine, self._gallery = engine, gallery
        self._clock = time.perf_counter
        self._line = WaitingLine(check_whole(queue, "queue"))
        self._rounds = Rounds(_TOGETHER if together else 1)
        self._ingest: Work[Any] | None = None
        self._share = FairShare()
        self._number, self._cost = 0, 0.0
        self._changed = threading.Condition()
        self._open, self._stop = True, False
        self._thread = threading.Thread(target=self._work, name="murank worker", daemon=True)
        self._thread.start()

    @property
    def has_gallery(self) -> bool:
        """Whether there is one to search."""
        return self._gallery is not None

    @property
    def gallery(self) -> Gallery:
        """The gallery. Raises InputError where there is none."""
        if self._gallery is None:
            raise InputError("there is no gallery: give the worker one")
        return self._gallery

    def rank(
        self, query: ImageSource, candidates: Sequence[ImageSource], top_k: int | None = None, *,
        deadline_ms: float | None = None,
    ) -> Answer[Ranked]:  # fmt: skip
        """As `Engine.rank`; the deadline counts from this call. One that passes before the work
        has begun leaves every candidate unseen.

        Raises
        ------
        InputError
            An argument cannot be; what is wrong with an image is the answer's error.
        Overloaded
            It could not be begun in time.
        """  # noqa: D205
        check_deadline(deadline_ms)
        check_images(candidates, "candidates")
        if top_k is not None:
            check_whole(top_k, "top_k")
        self.engine.need_scorer()
        count = len(candidates)

        def begin(left_ms: float) -> Steps[Ranked]:
            return steps_of(self.engine.rank, query, candidates, top_k, deadline_ms=left_ms)

        def late() -> Ranked:
            return ranked(np.empty(0), count, top_k=top_k, most=math.inf)

        return self._query(begin, deadline_ms, late)

    def search(
        self, crop: Any = None, *, deadline_ms: float | None = None, **query: Any
    ) -> Answer[GallerySearchResult]:
        """As `Gallery.search`; the deadline counts from this call. One that passes before the work
        has begun leaves the MLLM out.

        Raises
        ------
        InputError
            There is no gallery, or the deadline cannot be; what else is wrong is the answer's
            error.
        Overloaded
            It could not be begun in time.
        """  # noqa: D205
        check_deadline(deadline_ms)
        search = self.gallery.search

        def begin(left_ms: float) -> Steps[GallerySearchResult]:
            return steps_of(search, crop, deadline_ms=left_ms, **query)

        return self._query(begin, deadline_ms, None)

    def add(self, crops: Any = None, **items: Any) -> Answer[list[AddResult]]:
        """As `Gallery.add`, below queries. What was begun is ended, cancelled or not.

        Raises InputError where there is no gallery, and Overloaded.
        """
        add = self.gallery.add
        return self._later(lambda: steps_of(add, crops, **items))

    def do(self, task: Callable[[], T]) -> Answer[T]:
        """Call something between queries, at the place of ingest. Raises Overloaded."""

        def steps() -> Steps[T]:
            yield None
            return task()

        return self._later(steps)

    def warm(self) -> Answer[None]:
        """Let the engine's first runs be about made images, so that first deadlines count.

        At the place of ingest, for about a second. Raises Overloaded. Kernels of re-ranking are
        not among them: where this machine has not run them, a first search takes ten seconds and
        more, so search once without a deadline, too.
        """
        return self._later(lambda: warm(self.engine))

    @property
    def is_alive(self) -> bool:
        """Whether its thread works."""
        return self._thread.is_alive()

    def stats(self) -> WorkerStats:
        """Return what it is doing."""
        running = len(self._rounds.works)
        return WorkerStats(len(self._line), running, self._rounds.pairs)

    def close(self, grace: float = 10.0) -> None:
        """Take in nothing more, end within `grace` seconds what was taken in, drop the rest.

        What is dropped raises Closed to those who wait. A step that was begun is waited for, so
        long and no longer: one that hangs is left behind with a warning in the log.
        """
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join(0 if self._stop else grace)
        with self._changed:
            was_stopped, self._stop = self._stop, True
            self._changed.notify()
        self._thread.join(0 if was_stopped else _LAST_STEP)
        if self._thread.is_alive() and not was_stopped:
            warn(
                f"a worker's thread did not end within {_LAST_STEP:.0f} s of its close: it is left "
                "behind, and holds its engine and gallery until the process ends"
            )
            self._tell_dropped()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _query(
        self, begin: Callable[[float], Steps[T]], deadline_ms: float | None,
        late: Callable[[], T] | None,
    ) -> Answer[T]:  # fmt: skip
        seconds = math.inf if deadline_ms is None else deadline_ms / 1000
        now = self._clock()
        end = now + seconds

        def steps() -> Steps[T]:
            left_ms = 1000 * (end - self._clock())
            return begin(max(left_ms, 1e-3) if left_ms < math.inf else _NO_END_MS)

        with self._changed:
            self._check_room()
            wait = self._cost * self._line.ahead_of(end)
            if wait > seconds:
                raise Overloaded("there is too much to do before this deadline", wait)
            work = Work(steps, Answer[T](), self._number, now, end, late)
            self._line.add_query(work)
            self._changed.notify()
        return work.answer

    def _later(self, begin: Callable[[], Steps[T]]) -> Answer[T]:
        with self._changed:
            self._check_room()
            work = Work(begin, Answer[T](), self._number, self._clock())
            self._line.add_ingest(work)
            self._changed.notify()
        return work.answer

    def _check_room(self) -> None:
        if not self._open:
            raise Closed(_CLOSED)
        if len(self._line) >= self._line.most:
            self._line.drop_unwanted()
        if len(self._line) >= self._line.most:
            wait = max(self._cost * len(self._line), 0.1)
            raise Overloaded(f"{self._line.most} others wait already", wait)
        self._number += 1

    def _work(self) -> None:
        """The thread: one step after the other, until it is closed."""
        try:
            while self._wait():
                self._step()
        finally:  # also if this is broken: nobody may wait for ever
            begun = self._tell_dropped()
            for work in begun:
                work.fail(Closed(_DROPPED))

    def _tell_dropped(self) -> list[Work[Any]]:
        """Let all that wait know that it will not be done; returns the work that has begun."""
        with self._changed:
            self._open = False
            begun = [*self._rounds.works, *([] if self._ingest is None else [self._ingest])]
            for work in (*begun, *self._line.empty()):
                work.tell(Closed(_DROPPED))
        return begun

    def _step(self) -> None:
        asks, ingests = bool(self._rounds.works), self._ingest is not None
        others_wait = asks or self._line.first_end is not None
        if ingests and (not others_wait or self._share.is_ingest_next):
            self._step_of_ingest(others_wait=others_wait)
        elif asks:
            start = self._clock()
            self._rounds.go_on()
            if ingests:
                self._share.queries_took(self._clock() - start)

    def _wait(self) -> bool:
        """Wait until there is something to do, and begin what may; false: nothing ever will be."""
        with self._changed:
            while not (len(self._line) or self._rounds.works or self._ingest or self._stop):
                if not self._open:
                    return False
                self._changed.wait()
            if self._stop:
                return False
            if self._ingest is None and self._line.has_ingest:
                work = self._line.next_ingest()
                self._ingest = work if work.answer.set_running_or_notify_cancel() else None
            next_query, end = None, self._line.first_end
            if end is not None and self._rounds.has_room(end):
                next_query = self._line.next_query()
        if next_query is not None and next_query.answer.set_running_or_notify_cancel():
            self._begin(next_query)
        return True

    def _begin(self, work: Work[Any]) -> None:
        start = self._clock()
        work.answer.waited = start - work.arrived
        if start > work.end and work.late is not None:
            work.answer.set_result(work.late())
            return
        self._rounds.begin(work)
        spent = self._clock() - start
        self._cost += _NEW * (spent - self._cost)
        if self._ingest is not None:
            self._share.queries_took(spent)

    def _step_of_ingest(self, *, others_wait: bool) -> None:
        assert self._ingest is not None  # noqa: S101
        start = self._clock()
        if self._ingest.step():
            self._ingest = None
        if others_wait:
            self._share.ingest_took(self._clock() - start)

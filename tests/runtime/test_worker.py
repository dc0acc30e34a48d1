"""The worker: many callers, one thread, earliest deadline first, pairs together, load refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from gallery_engines import feature_engine, people
from search_parts import WHITE, FakeClock, make_engine, make_images

from murank import Closed, Engine, Gallery, InputError, Overloaded, Worker
from murank.worker.fair_share import FairShare

WAIT = 30.0  # seconds after which a test has failed


@contextmanager
def held(worker: Worker) -> Iterator[None]:
    """Keep the worker's thread busy: what is asked inside waits in line until it is left."""
    begun, go = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go.wait(WAIT)

    answer = worker.do(block)
    assert begun.wait(WAIT)
    try:
        yield
    finally:
        go.set()
        answer.result(WAIT)


def runs_of(engine: Engine) -> list[tuple[int, ...]]:
    return cast("list[tuple[int, ...]]", cast("Any", engine.scorer).decoder.runs)


def test_answers_are_those_of_the_engine_and_of_runs_together() -> None:
    images = make_images(40)
    lists = [images[10 + i : 34 + i] for i in range(5)]
    expected = [make_engine().rank(images[i], lists[i]) for i in range(5)]
    engine = make_engine()
    with Worker(engine) as worker:
        with held(worker):
            answers = [worker.rank(images[i], lists[i]) for i in range(5)]
        assert [answer.result(WAIT) for answer in answers] == expected
        assert worker.stats().pairs == 5 * 24
    assert max(runs_of(engine)) == (5, 4)  # one begins before each run
    assert sum(queries * each for queries, each in runs_of(engine)) == 5 * 24


def test_apart_no_run_is_of_two_queries() -> None:
    images, engine = make_images(20), make_engine()
    with Worker(engine, together=False) as worker:
        with held(worker):
            answers = [worker.rank(images[i], images[5:15]) for i in range(3)]
        assert [answer.result(WAIT) for answer in answers] == [
            make_engine().rank(images[i], images[5:15]) for i in range(3)
        ]
    assert {queries for queries, _ in runs_of(engine)} == {1}


def test_queries_of_different_lengths_do_not_wait_for_each_other() -> None:
    images = make_images(20)
    with Worker(make_engine()) as worker:
        with held(worker):
            answers = [worker.rank(images[i], images[5 : 6 + 3 * i]) for i in range(4)]
        for i, answer in enumerate(answers):
            assert answer.result(WAIT) == make_engine().rank(images[i], images[5 : 6 + 3 * i])


def test_the_earliest_deadline_is_first_and_without_one_last() -> None:
    images = make_images(10)
    order: list[str] = []
    with Worker(make_engine(), together=False) as worker, held(worker):
        for name, deadline in (("none", None), ("late", 9e6), ("soon", 5e6), ("later", 9e7)):
            answer = worker.rank(images[0], images[1:9], deadline_ms=deadline)
            answer.add_done_callback(partial(_note, order, name))
    assert order == ["soon", "late", "later", "none"]


def test_an_urgent_query_begins_although_many_are_in_progress() -> None:
    images, engine = make_images(10), make_engine()
    order: list[str] = []
    with Worker(engine) as worker, held(worker):
        for name, deadline in [("none", None)] * 8 + [("urgent", 1e6)]:
            answer = worker.rank(images[0], images[1:9], deadline_ms=deadline)
            answer.add_done_callback(partial(_note, order, name))
    assert order[0] == "urgent"


def test_more_than_may_wait_are_refused_and_told_when_to_ask_again() -> None:
    images = make_images(4)
    with Worker(make_engine(), queue=2) as worker:
        with held(worker):
            answers = [worker.rank(images[0], images[1:]) for _ in range(2)]
            with pytest.raises(Overloaded) as refused:
                worker.rank(images[0], images[1:])
            assert refused.value.retry_after > 0
            with pytest.raises(Overloaded):
                worker.do(_nothing)
        assert len([answer.result(WAIT) for answer in answers]) == 2
        assert worker.rank(images[0], images[1:]).result(WAIT)


def test_what_cannot_begin_in_time_is_refused() -> None:
    images = make_images(4)
    with Worker(make_engine()) as worker:
        worker.rank(images[0], images[1:]).result(WAIT)
        worker._cost = 1.0  # seconds that each query takes before its first pair
        with held(worker):
            worker.rank(images[0], images[1:], deadline_ms=1500)
            worker.rank(images[0], images[1:], deadline_ms=1600)
            with pytest.raises(Overloaded, match="deadline"):
                worker.rank(images[0], images[1:], deadline_ms=1700)
            worker.rank(images[0], images[1:], deadline_ms=1100)  # goes before the others


def test_a_deadline_that_passes_in_line_leaves_every_candidate_unseen(tmp_path: Path) -> None:
    images, engine = make_images(6), make_engine()
    with (
        Gallery.open(tmp_path / "g.db", feature_engine()) as gallery,
        Worker(engine, gallery) as worker,
    ):
        with held(worker):
            late = worker.rank(images[0], images[1:], 2, deadline_ms=1)
            search = worker.search(feature=people(1, 1)[0], deadline_ms=1)
            time.sleep(0.01)
        answer = late.result(WAIT)
        assert [match.corpus_id for match in answer] == [0, 1]
        assert (answer.partial, answer.scored) == (True, ())
        assert search.result(WAIT).scored == 0
    assert runs_of(engine) == []


def test_what_was_cancelled_in_line_is_not_done() -> None:
    images, engine = make_images(6), make_engine()
    with Worker(engine) as worker:
        with held(worker):
            answer = worker.rank(images[0], images[1:])
            assert answer.cancel()
        assert answer.cancelled()
    assert runs_of(engine) == []


def test_what_was_cancelled_leaves_its_place_in_line() -> None:
    images = make_images(6)
    with Worker(make_engine(), queue=3) as worker:
        with held(worker):
            for _ in range(3):
                worker.rank(images[0], images[1:]).cancel()
            kept = [worker.rank(images[0], images[1:]) for _ in range(3)]
            with pytest.raises(Overloaded):
                worker.rank(images[0], images[1:])
        assert all(answer.result(WAIT) for answer in kept)


def test_what_was_cancelled_on_its_way_stops_before_its_next_pairs() -> None:
    images, engine = make_images(30), make_engine()
    decoder = cast("Any", engine.scorer).decoder
    logits, begun, go = decoder.logits, threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        begun.set()
        go.wait(WAIT)
        return logits(*args)

    decoder.logits = slow
    with Worker(engine) as worker:
        answer = worker.rank(images[0], images[1:29])
        assert begun.wait(WAIT)
        assert not answer.cancel()
        go.set()
        with pytest.raises(CancelledError):
            answer.result(WAIT)
        assert worker.rank(images[0], images[1:5]).result(WAIT)
    assert runs_of(engine) == [(1, 4), (1, 4)]


def test_an_awaiting_task_that_is_cancelled_cancels_the_work() -> None:
    images, engine = make_images(6), make_engine()

    async def ask(worker: Worker) -> None:
        assert await worker.rank(images[0], images[1:]) == make_engine().rank(images[0], images[1:])
        with held(worker):
            task = asyncio.create_task(_awaited(worker.rank(images[0], images[1:])))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with Worker(engine) as worker:
        asyncio.run(ask(worker))
    assert sum(queries * each for queries, each in runs_of(engine)) == 5


def _nothing() -> None:
    """Nothing to do."""


def _note(order: list[str], name: str, _answer: object) -> None:
    order.append(name)


async def _awaited(answer: Any) -> Any:
    return await answer


def test_an_image_that_cannot_be_used_is_the_error_of_its_query_alone() -> None:
    images, engine = make_images(10), make_engine()
    white = np.full_like(images[0], WHITE)  # the answer about it is no number
    with Worker(engine) as worker:
        with held(worker):
            bad = worker.rank(images[0], [*images[1:4], white])
            broken = worker.rank(b"no image", images[1:5])
            good = worker.rank(images[0], images[1:5])
        for answer, name in ((bad, "candidates"), (broken, "query")):
            with pytest.raises(InputError, match=name):
                answer.result(WAIT)
        assert good.result(WAIT) == make_engine().rank(images[0], images[1:5])


def test_a_run_that_fails_fails_those_in_it_and_the_worker_goes_on() -> None:
    images, engine = make_images(20), make_engine()
    decoder = cast("Any", engine.scorer).decoder
    logits, calls = decoder.logits, list[int]()

    def fails_once(prefix: Any, tokens: Any) -> Any:
        if len(tokens) == 2 and not calls:
            calls.append(1)
            raise MemoryError
        return logits(prefix, tokens)

    decoder.logits = fails_once
    with Worker(engine) as worker:
        with held(worker):
            answers = [worker.rank(images[i], images[5:20]) for i in range(2)]
        for answer in answers:
            with pytest.raises(MemoryError):
                answer.result(WAIT)
        assert worker.rank(images[0], images[5:9]).result(WAIT)


def test_an_error_that_is_no_exception_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, images = make_engine(), make_images(5)

    def leaves(*_: Any, **__: Any) -> Any:
        raise SystemExit(3)

    with Worker(engine) as worker:
        with monkeypatch.context() as patch:
            patch.setattr("murank.engine.pair_orders.pixels_of", leaves)
            with pytest.raises(SystemExit):
                worker.rank(images[0], images[1:]).result(WAIT)
        assert worker.is_alive
        assert worker.rank(images[0], images[1:]).result(WAIT)


def test_search_and_add_are_those_of_the_gallery(tmp_path: Path) -> None:
    engine = make_engine()
    engine.encoder_sha256 = "a" * 64
    crops = [np.kron(one, np.ones((8, 8, 1), np.uint8)) for one in make_images(12)]
    with Gallery.open(tmp_path / "g.db", engine) as gallery, Worker(engine, gallery) as worker:
        added = worker.add(crops, camera=0, time=1.0, id=[f"{i}" for i in range(12)]).result(WAIT)
        assert [one.status for one in added] == ["added"] * 12
        expected = gallery.search(crops[3], top_k=5)
        found = worker.search(crops[3], top_k=5).result(WAIT)
        assert found.matches == expected.matches
        assert found.scored == 12
        with pytest.raises(InputError, match="camera"):
            worker.search(crops[3], cameras="first").result(WAIT)
        with pytest.raises(TypeError):
            worker.search(crops[3], colour="red").result(WAIT)


def test_warming_asks_about_made_crops_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(FakeClock(vision=0.004, prefill=0.002, score=0.001))
    engine.encoder_sha256 = "a" * 64
    forgotten: list[bytes] = []
    monkeypatch.setattr(engine, "forget", forgotten.append)
    with Gallery.open(tmp_path / "g.db", engine) as gallery, Worker(engine, gallery) as worker:
        worker.warm().result(WAIT)
        assert gallery.stats().rows == 0
    assert runs_of(engine) == [(1, 4)] * 3
    assert len(set(forgotten)) == 3 * 5  # all that it was shown
    assert (engine.pace.expected("vision", 4), engine.pace.expected("score", 4)) == (0, 0)


def test_warming_ends_early_where_the_engine_is_slow() -> None:
    engine = make_engine(FakeClock(vision=2.0))
    with pytest.MonkeyPatch.context() as patch, Worker(engine) as worker:
        patch.setattr(engine, "forget", lambda _crop: True)
        worker.warm().result(WAIT)
    assert runs_of(engine) == [(1, 4)]


def test_warming_without_an_mllm_is_nothing() -> None:
    with Worker(make_engine(scorer=False)) as worker:
        assert worker.warm().result(WAIT) is None


def test_ingest_goes_on_while_queries_never_end(tmp_path: Path) -> None:
    engine, images = make_engine(), make_images(12)
    engine.encoder_sha256 = "a" * 64
    crops = [np.kron(one, np.ones((8, 8, 1), np.uint8)) for one in images]
    with Gallery.open(tmp_path / "g.db", engine) as gallery, Worker(engine, gallery) as worker:
        added = worker.add(crops * 5, camera=0, time=1.0)
        until = time.monotonic() + WAIT
        while not added.done():
            assert time.monotonic() < until
            with held_off_overload():
                worker.rank(images[0], images[1:12])
        assert len(added.result()) == 60


@contextmanager
def held_off_overload() -> Iterator[None]:
    try:
        yield
    except Overloaded:
        time.sleep(0.001)


@pytest.mark.parametrize(("query", "ingest"), [(0.01, 0.01), (0.05, 0.002), (0.001, 0.03)])
def test_ingest_has_a_fifth_of_the_time(query: float, ingest: float) -> None:
    share, spent = FairShare(), {"queries": 0.0, "ingest": 0.0}
    while sum(spent.values()) < 100:
        if share.is_ingest_next:
            share.ingest_took(ingest)
            spent["ingest"] += ingest
        else:
            share.queries_took(query)
            spent["queries"] += query
    # Off by one step of each, and what may be owed.
    assert abs(spent["ingest"] - 20) < 1


def test_closing_ends_what_was_taken_in_and_refuses_more() -> None:
    images = make_images(10)
    worker = Worker(make_engine())
    with held(worker):
        answers = [worker.rank(images[0], images[1:9]) for _ in range(3)]
    worker.close()
    assert all(answer.result(0) for answer in answers)
    with pytest.raises(Closed):
        worker.rank(images[0], images[1:])
    with pytest.raises(Closed):
        worker.do(_nothing)
    worker.close()


def test_what_does_not_end_in_the_grace_is_dropped_and_told_so() -> None:
    images = make_images(10)
    worker = Worker(make_engine())
    go, begun = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go.wait(WAIT)

    ingest = worker.do(block)
    assert begun.wait(WAIT)
    answers: list[Any] = [worker.rank(images[0], images[1:]), worker.do(_nothing)]
    assert answers[0].cancel()  # whoever cancels is told of no other reason
    answers.append(worker.rank(images[0], images[1:]))

    async def wait_for_both() -> list[Any]:
        waiting: Any = asyncio.gather(*answers[1:], return_exceptions=True)
        threading.Timer(0.2, go.set).start()
        await asyncio.to_thread(worker.close, 0.05)
        return list(await waiting)

    for error in (*asyncio.run(wait_for_both()), *(one.exception(0) for one in answers[1:])):
        assert type(error) is Closed
        assert len(str(error).splitlines()) == 1
    with pytest.raises(CancelledError):
        answers[0].result(0)
    assert ingest.result(0) is None  # it was begun, and ended


@pytest.mark.parametrize("where", ["its first step", "a run", "ingest"])
def test_a_step_that_hangs_is_left_behind_and_nobody_waits_for_it(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("murank.worker.worker._LAST_STEP", 0.05)
    images, engine = make_images(10), make_engine()
    go, begun = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        begun.set()
        go.wait(WAIT)
        raise ValueError

    if where == "its first step":
        monkeypatch.setattr("murank.engine.pair_orders.pixels_of", hang)
    elif where == "a run":
        cast("Any", engine.scorer).decoder.logits = hang
    worker = Worker(engine)
    hung = worker.do(hang) if where == "ingest" else worker.rank(images[0], images[1:])
    assert begun.wait(WAIT)
    waits = worker.rank(images[0], images[1:])
    worker.close(grace=0.05)
    for answer in (hung, waits):
        with pytest.raises(Closed):
            answer.result(0)
    worker.close()  # at once: it was waited for already
    assert [record.name for record in caplog.records] == ["murank"]
    go.set()
    worker._thread.join(WAIT)
    assert not worker.is_alive  # what came of it at last is nobody's, and breaks nothing


@pytest.mark.parametrize(
    "ask",
    [
        lambda worker, images: worker.rank(images[0], images[1:], deadline_ms=0),
        lambda worker, images: worker.rank(images[0], images[1]),
        lambda worker, images: worker.rank(images[0], images[1:], 0),
        lambda worker, images: worker.search(images[0]),
        lambda worker, images: worker.add(images, camera=0, time=0.0),
    ],
)
def test_what_cannot_be_is_refused_at_once(ask: Any) -> None:
    with Worker(make_engine()) as worker, pytest.raises(InputError):
        ask(worker, make_images(4))
    with pytest.raises(InputError, match="queue"):
        Worker(make_engine(), queue=0)
    with Worker(make_engine(scorer=False)) as worker, pytest.raises(InputError, match="MLLM"):
        worker.rank(make_images(1)[0], make_images(2))

"""Who is asked when, on a clock that only the test moves."""

import numpy as np
import pytest
from bench_fakes import FakeClock, FakeQueries, FakeSubject

from murank.bench.samples import Sample
from murank.bench.scenarios import BLOCK, arrivals, multi_stream, offline, server, single_stream


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def latencies(samples: list[Sample]) -> list[float]:
    return [round(one.latency, 9) for one in samples]


def test_single_stream_asks_when_the_last_is_answered(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda n: 0.1 * (n + 1))
    queries = FakeQueries(clock, seconds=0.01)
    samples = list(single_stream(subject, queries, clock, duration=1.0))
    # 0.11 + 0.21 + 0.31 + 0.41 = 1.04: the fourth began before the second was over.
    assert latencies(samples) == [0.1, 0.2, 0.3, 0.4]
    assert subject.log == ["ask q0", "ask q1", "ask q2", "ask q3"]
    assert [one.service for one in samples] == [one.latency for one in samples]
    assert [one.cpu for one in samples] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert samples[-1].ended == pytest.approx(1.04)


def test_single_stream_asks_at_least_so_many(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 5.0)
    samples = list(single_stream(subject, FakeQueries(clock), clock, duration=1.0, least=3))
    assert latencies(samples) == [5.0, 5.0, 5.0]


def test_what_runs_before_a_query_is_not_its_latency(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 0.3)

    def before() -> None:
        subject.forget()
        clock.work(0.5)

    found = list(single_stream(subject, FakeQueries(clock), clock, duration=1.0, before=before))
    assert latencies(found) == [0.3, 0.3]
    assert subject.log == ["forget", "ask q0", "forget", "ask q1"]
    assert [one.cpu for one in found] == pytest.approx([0.6, 0.6])


def test_a_deadline_is_passed_on_and_its_overshoot_measured(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda n: (0.1, 0.25)[n % 2])
    samples = list(
        single_stream(subject, FakeQueries(clock), clock, duration=0.3, deadline_ms=200.0)
    )
    assert subject.deadlines == [200.0, 200.0]
    assert [one.overshoot for one in samples] == pytest.approx([0.0, 0.05])


def test_multi_stream_times_groups(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 0.4)
    samples = list(multi_stream(subject, FakeQueries(clock), clock, duration=1.0, group=5))
    assert subject.log == ["ask 5"] * 3
    assert latencies(samples) == [0.4, 0.4, 0.4]
    assert [one.queries for one in samples] == [5, 5, 5]


def test_arrivals_are_a_poisson_process() -> None:
    due = np.array(arrivals(50.0, 200.0, seed=1))
    gaps = np.diff(due, prepend=0)
    assert (gaps > 0).all()
    assert due[-1] < 200
    # Of 10,000 exponential gaps: mean and deviation are both 1/50, within 4 standard errors.
    assert gaps.mean() == pytest.approx(0.02, rel=0.04)
    assert gaps.std() == pytest.approx(0.02, rel=0.06)
    assert (gaps > 0.02).mean() == pytest.approx(np.exp(-1), abs=0.02)
    assert arrivals(50.0, 200.0, seed=1) == due.tolist()
    assert arrivals(50.0, 200.0, seed=2)[:3] != due[:3].tolist()


def test_somebody_always_arrives() -> None:
    assert arrivals(1e-9, 1.0, seed=0) == [0.0]


def test_server_waits_for_arrivals(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 0.1)
    due = [0.5, 1.0, 2.0]
    samples = list(server(subject, FakeQueries(clock), clock, due=due, duration=3.0))
    assert clock.slept == pytest.approx([0.5, 0.4, 0.9])
    assert latencies(samples) == [0.1, 0.1, 0.1]


def test_a_stall_is_felt_by_all_who_wait(clock: FakeClock) -> None:
    """The query that stalls for 1 s delays those that arrive meanwhile: no coordinated omission."""
    subject = FakeSubject(clock, lambda n: 1.0 if n == 2 else 0.01)
    due = [0.1 * n for n in range(1, 21)]
    samples = list(server(subject, FakeQueries(clock), clock, due=due, duration=2.0))
    assert len(samples) == 20
    # Number 2 arrives at 0.3 and is done at 1.3; number n >= 3 then waits its turn, 0.01 each.
    expected = [0.01, 0.01, 1.0]
    free = 1.3
    for moment in due[3:]:
        free = max(free, moment) + 0.01
        expected.append(free - moment)
    assert latencies(samples) == pytest.approx(expected)
    assert sum(one.latency > 0.5 for one in samples) == 6  # not the one that stalled alone
    assert [one.service for one in samples if one.latency != 1.0] == pytest.approx([0.01] * 19)


def test_making_images_delays_no_arrival(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 0.01)
    queries = FakeQueries(clock, seconds=1.0)
    samples = list(server(subject, queries, clock, due=[0.1, 0.2], duration=1.0))
    assert latencies(samples) == [0.01, 0.01]


def test_a_server_that_cannot_keep_up_is_ended(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 1.0)
    due = [0.1 * n for n in range(1, 101)]  # 10 a second for 10 s, one a second answered
    samples = list(server(subject, FakeQueries(clock), clock, due=due, duration=10.0))
    assert len(samples) == 20  # the duration and 10 s
    assert latencies(samples)[-1] == pytest.approx(20.1 - due[19])


def test_time_waited_is_taken_from_a_deadline(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 0.3)
    due = [0.1, 0.2, 0.25]
    samples = list(
        server(subject, FakeQueries(clock), clock, due=due, duration=1.0, deadline_ms=400.0)
    )
    # The third waits from 0.25 to 0.7, longer than its deadline: 1 ms is left, not less.
    assert subject.deadlines == pytest.approx([400.0, 200.0, 1.0])
    assert [one.overshoot for one in samples] == pytest.approx([0.0, 0.1, 0.35])


def test_offline_counts_from_the_beginning(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 2.0)
    queries = FakeQueries(clock, seconds=0.1)
    samples = list(offline(subject, queries, clock, count=2 * BLOCK + 5, duration=6.0))
    assert subject.log == [f"ask {BLOCK}", f"ask {BLOCK}", "ask 5"]
    assert latencies(samples) == [2.0, 4.0, 6.0]
    assert [one.queries for one in samples] == [BLOCK, BLOCK, 5]
    assert samples[-1].ended == pytest.approx(6.0)


def test_offline_that_takes_far_too_long_is_ended(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 8.0)
    samples = list(offline(subject, FakeQueries(clock), clock, count=5 * BLOCK, duration=1.0))
    assert latencies(samples) == [8.0, 16.0]


def test_what_was_measured_before_an_interruption_is_there(clock: FakeClock) -> None:
    subject = FakeSubject(clock, lambda _: 0.1, stop_at=3)
    samples = single_stream(subject, FakeQueries(clock), clock, duration=9.0)
    assert latencies([next(samples) for _ in range(3)]) == [0.1, 0.1, 0.1]
    with pytest.raises(KeyboardInterrupt):
        next(samples)

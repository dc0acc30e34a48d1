import pytest
from search_parts import FakeClock

from murank.engine.deadline import Deadline, Pace
from murank.engine.stopwatch import Stage, StageWatch


def spend(pace: Pace, clock: FakeClock, step: Stage, seconds: float, items: int = 1) -> None:
    with pace.timed(step, StageWatch(), items):
        clock.now += seconds


def test_a_steady_pace_is_learnt() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    assert pace.expected("score", 5) == 0
    spend(pace, clock, "score", 2.0, items=4)
    assert pace.expected("score") == pytest.approx(2 * 0.5)  # careful at first
    for _ in range(60):
        spend(pace, clock, "score", 2.0, items=4)
    assert pace.expected("score", 3) == pytest.approx(1.5, rel=1e-3)
    assert pace.expected("vision") == 0


def test_a_slow_first_run_is_forgotten_at_once() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    for seconds in (9.0, 1.0):
        spend(pace, clock, "score", seconds)
    assert pace.expected("score") == pytest.approx(2)
    spend(pace, clock, "score", 0.9)
    assert pace.expected("score") > 1.5  # the third is one of many
    for seconds in (1.0, 2.0):
        spend(pace, clock, "vision", seconds)
    assert pace.expected("vision") > 2


def test_an_uneven_pace_is_foreseen_above_its_mean() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    for number in range(100):
        spend(pace, clock, "score", 1.0 + (number % 2))
    assert 2 < pace.expected("score") < 3


def test_one_alone_and_several_are_learnt_apart() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    for _ in range(60):
        spend(pace, clock, "vision", 5.0)
    assert pace.expected("vision", 4) == pytest.approx(20, rel=1e-2)  # no more than one by one
    for _ in range(60):
        spend(pace, clock, "vision", 8.0, items=4)
    assert pace.expected("vision") == pytest.approx(5, rel=1e-2)
    assert pace.expected("vision", 3) == pytest.approx(6, rel=1e-2)


def test_what_is_forgotten_is_learnt_anew() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    for _ in range(5):
        spend(pace, clock, "score", 9.0)
    pace.forget()
    assert pace.expected("score") == 0
    spend(pace, clock, "score", 1.0)
    assert pace.expected("score") == 2


def test_one_stall_is_no_new_pace() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    for _ in range(60):
        spend(pace, clock, "score", 1.0)
    spend(pace, clock, "score", 1000.0)
    assert pace.expected("score") < 5


def test_a_new_pace_is_followed_both_ways() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    for seconds in (1.0, 10.0, 1.0):
        for _ in range(60):
            spend(pace, clock, "score", seconds)
        assert pace.expected("score") == pytest.approx(seconds, rel=1e-2)


def test_no_time_at_all_is_a_pace_too() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    spend(pace, clock, "fuse", 0.0)
    spend(pace, clock, "fuse", 1.0)
    assert pace.expected("fuse") > 0


def test_what_failed_teaches_nothing() -> None:
    clock = FakeClock()
    pace, watch = Pace(clock), StageWatch()
    with pytest.raises(ValueError, match="no"), pace.timed("score", watch):
        raise ValueError("no")
    assert pace.expected("score") == 0
    assert watch.seconds.keys() == {"score"}


def test_fits() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    for _ in range(60):
        spend(pace, clock, "score", 1.0)
    assert Deadline(pace, None).fits(score=10**9)
    end = clock.now + 5
    assert Deadline(pace, end).fits(score=4)
    assert not Deadline(pace, end).fits(score=6)
    assert Deadline(pace, end).fits(score=4, vision=7)  # never seen: it may be
    assert not Deadline(pace, clock.now).fits(vision=1)  # but not once the time is over
    assert not Deadline(pace, clock.now).fits()


def test_refusing_fades_so_that_a_slow_spell_ends() -> None:
    clock = FakeClock()
    pace = Pace(clock)
    spend(pace, clock, "score", 10.0)
    deadline = Deadline(pace, clock.now + 1)
    refused = 0
    while not deadline.fits(score=1):
        refused += 1
    assert 5 < refused < 30
    spend(pace, clock, "vision", 10.0)
    before = pace.expected("vision")
    assert not Deadline(pace, clock.now - 1).fits(vision=1)  # the lack of time was to blame
    assert pace.expected("vision") == before

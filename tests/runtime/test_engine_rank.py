"""`Engine.rank`: as ever without a deadline; with one, what was seen and what of the rest."""

from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from search_parts import FakeClock, forget, make_engine, make_images

from murank import InputError, Ranked
from murank.engine.results import ranked

QUERY, *CANDIDATES = make_images(13)
COSTS = {"vision": 0.004, "prefill": 0.010, "score": 0.001}


def test_without_a_deadline_all_are_seen() -> None:
    engine = make_engine()
    mu = engine.mu(QUERY, CANDIDATES)
    found = engine.rank(QUERY, CANDIDATES)
    assert isinstance(found, list)
    assert [row.corpus_id for row in found] == np.argsort(mu, kind="stable").tolist()
    assert [row.mu for row in found] == pytest.approx(np.sort(mu), abs=1e-6)
    assert found.scored == tuple(range(12))
    assert found.partial is False
    assert engine.rank(QUERY, []) == []
    assert engine.rank(QUERY, CANDIDATES, deadline_ms=1e9) == found
    assert engine.rank(QUERY, [], deadline_ms=5) == []


def test_in_the_order_given_as_far_as_the_time_goes() -> None:
    clock = FakeClock(**COSTS)
    engine = make_engine(clock)
    for seed in range(1, 41):
        engine.rank(make_images(1, seed)[0], CANDIDATES, deadline_ms=1e6)
    start = clock.now
    found = engine.rank(QUERY, CANDIDATES, deadline_ms=23)  # 4 + 10, then 4 a batch
    assert clock.now - start <= 0.023
    assert (found.scored, found.partial) == ((0, 1, 2, 3, 4, 5, 6, 7), True)
    assert sorted(row.corpus_id for row in found) == list(range(12))
    mu = engine.mu(QUERY, CANDIDATES)
    for row in found:
        is_seen = row.corpus_id < 8
        assert (row.mu is None) == (not is_seen)
        assert row.score == pytest.approx(1 - mu[row.corpus_id] if is_seen else 0.5)
    assert [row.score for row in found] == sorted((row.score for row in found), reverse=True)
    late = engine.rank(make_images(1, seed=99)[0], CANDIDATES, deadline_ms=3)
    assert (late.scored, late.partial) == ((), True)
    assert [row.corpus_id for row in late] == list(range(12))


def test_the_undecided_stand_in_the_middle_and_below_no_threshold() -> None:
    mu = np.array([0.9, 0.1, 0.5, 0.7])
    found = ranked(mu, 6, top_k=None, most=float("inf"))
    assert [row.corpus_id for row in found] == [1, 2, 4, 5, 3, 0]
    assert [row.mu for row in found] == [0.1, 0.5, None, None, 0.7, 0.9]
    assert [row.score for row in found] == pytest.approx([0.9, 0.5, 0.5, 0.5, 0.3, 0.1])
    assert found == ranked(mu, 6, top_k=6, most=float("inf"))
    assert [row.corpus_id for row in ranked(mu, 6, top_k=2, most=0.7)] == [1, 2]
    within = ranked(mu, 6, top_k=3, most=0.7)
    assert [row.corpus_id for row in within] == [1, 2, 3]
    assert (within.scored, within.partial) == ((0, 1, 2, 3), True)


@pytest.mark.parametrize("order", ["swapped", "both"])
def test_a_deadline_wants_the_given_order(order: Any) -> None:
    with pytest.raises(InputError, match=rf"deadline needs order='given', not '{order}'"):
        make_engine().rank(QUERY, CANDIDATES, order=order, deadline_ms=5)
    assert len(make_engine().rank(QUERY, CANDIDATES, order=order)) == 12


@pytest.mark.parametrize("deadline", [0, -3.5, float("nan"), False, "soon"])
def test_deadlines_that_cannot_be(deadline: Any) -> None:
    with pytest.raises(InputError, match="deadline_ms"):
        make_engine().rank(QUERY, CANDIDATES, deadline_ms=deadline)


def test_other_errors_hold_with_a_deadline() -> None:
    engine = make_engine()
    with pytest.raises(InputError, match="order"):
        engine.rank(QUERY, CANDIDATES, order="reversed", deadline_ms=5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be a list of images"):
        engine.rank(QUERY, "folder", deadline_ms=5)
    with pytest.raises(InputError, match="no MLLM loaded"):
        make_engine(scorer=False).rank(QUERY, CANDIDATES, deadline_ms=5)
    with pytest.raises(InputError, match="top_k"):
        engine.rank(QUERY, CANDIDATES, 0, deadline_ms=5)


def test_a_match_as_the_dict_of_other_rankers() -> None:
    (best, *_) = found = make_engine().rank(QUERY, CANDIDATES)
    assert best.asdict() == {"corpus_id": best.corpus_id, "score": 1 - best.distance, "mu": best.mu}
    assert best.mu == best.distance
    assert np.isnan(best.encoder_distance)  # it was not asked
    with pytest.raises(FrozenInstanceError):
        best.mu = 0.0  # type: ignore[misc]
    assert len({*found}) == len(CANDIDATES)


def test_a_plain_list_is_no_part_of_it() -> None:
    assert Ranked() == []
    assert (Ranked().scored, Ranked().partial) == ((), False)


@pytest.mark.parametrize("forgetful", [False, True])
def test_a_sequence_that_makes_its_images_at_each_look(forgetful: bool) -> None:
    """An array gives another object, perhaps at a freed address, whenever it is indexed."""
    engine = make_engine()
    stacked: Any = np.stack(CANDIDATES)
    wanted = engine.rank(QUERY, CANDIDATES)
    for _ in range(3):
        if forgetful:
            forget(engine)
        assert engine.rank(QUERY, stacked, deadline_ms=1e9) == wanted

"""Answers in time, by a clock that only the engine's work moves."""

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_parts import FakeClock, forget, make_engine, make_images, on_clock

from murank import InputError, Searcher, SearchResult
from murank.engine.stopwatch import StageWatch
from murank.search import SearchMethod

GALLERY, QUERIES = make_images(40), make_images(60, seed=1)
COSTS = {"embed": 0.002, "vision": 0.004, "prefill": 0.010, "score": 0.001}
K = 20


def searcher_on(clock: FakeClock, method: SearchMethod = "simple") -> Searcher:
    with on_clock(clock):
        return Searcher.from_images(make_engine(clock), GALLERY, candidates=K, method=method)


def learnt(clock: FakeClock, method: SearchMethod = "simple") -> Searcher:
    """A searcher that knows its pace, and the vision tokens of its gallery."""
    searcher = searcher_on(clock, method)
    searcher.warm()
    for query in QUERIES[:40]:
        searcher.search(query, deadline_ms=1e6)
    return searcher


def spent(searcher: Searcher, clock: FakeClock, deadline_ms: float, query: int = 50) -> float:
    """Milliseconds that a search really takes."""
    start = clock.now
    searcher.search(QUERIES[query], deadline_ms=deadline_ms)
    return 1000 * (clock.now - start)


def order(result: SearchResult) -> list[int]:
    return [match.corpus_id for match in result.matches]


@pytest.mark.parametrize(
    ("deadline_ms", "scored"),
    # embed 2 + vision of the query 4 + prefill 10, then 4 a batch, or one alone
    [
        (1, 0),
        (15.9, 0),
        (16.9, 0),
        (19, 1),
        (21, 4),
        (23.9, 4),
        (25, 8),
        (35.9, 16),
        (37, 20),
        (1e6, 20),
    ],
)
def test_as_many_as_fit(deadline_ms: float, scored: int) -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    before = clock.done.copy()
    start = clock.now
    found = searcher.search(QUERIES[50], deadline_ms=deadline_ms)
    assert (found.scored, found.candidates) == (scored, K)
    assert found.partial == (scored < K)
    assert clock.now - start <= max(deadline_ms / 1000, COSTS["embed"]) + 1e-9
    for step in ("vision", "prefill"):  # of the query; none that is of no use
        assert clock.done[step] - before[step] == (scored > 0)


def test_the_nearest_are_seen_first_and_the_others_keep_their_distance() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    found = searcher.search(QUERIES[50], deadline_ms=25)
    nearest = sorted(found.matches, key=lambda one: one.encoder_distance)
    assert [one.mu is not None for one in nearest] == [True] * 8 + [False] * 32
    for one in nearest[8:]:
        assert one.distance == one.encoder_distance
    whole = searcher.search(QUERIES[50])
    assert {m.corpus_id: m.mu for m in whole.matches}.items() >= {
        (m.corpus_id, m.mu) for m in nearest[:8]
    }


def test_without_time_for_the_mllm_it_is_the_encoders_ranking() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    encoder = Searcher.from_images(make_engine(scorer=False), GALLERY, method="none")
    found = searcher.search(QUERIES[50], deadline_ms=0.001)
    assert order(found) == order(encoder.search(QUERIES[50]))
    assert (found.scored, found.partial) == (0, True)
    reranked = learnt(clock, "k-reciprocal").search(QUERIES[50], deadline_ms=0.001)
    by_encoder = Searcher.from_images(make_engine(scorer=False), GALLERY)
    assert order(reranked) == order(by_encoder.search(QUERIES[50]))


def test_plenty_of_time_changes_nothing() -> None:
    clock = FakeClock(**COSTS)
    searcher = searcher_on(clock, "k-reciprocal")
    whole = searcher.search(QUERIES[0])
    for deadline in (1e9, float("inf")):
        found = searcher.search(QUERIES[0], deadline_ms=deadline)
        assert order(found) == order(whole)
        assert (found.scored, found.partial) == (K, False)


def test_no_run_is_larger_than_the_engine_allows() -> None:
    engine = make_engine(max_pairs=3)
    Searcher.from_images(engine, GALLERY, candidates=K).search(QUERIES[0], deadline_ms=1e6)
    runs = cast("Any", engine.scorer).decoder.runs
    assert max(pairs for _, pairs in runs) == 3
    assert sum(pairs for _, pairs in runs) == K


def test_a_prefix_that_is_known_is_no_step() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    searcher.search(QUERIES[50], deadline_ms=21)
    assert searcher.search(QUERIES[50], deadline_ms=7).scored == 4


def test_vision_tokens_of_candidates_are_steps() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    for query in QUERIES[40:50]:
        searcher.search(query)
    engine = searcher.engine
    forget(engine)
    # 2 + 4 + 10, then 16 + 4 a batch; the last batch's tokens would fit, its pairs would not
    found = searcher.search(QUERIES[50], deadline_ms=16 + 20 + 18)
    assert found.scored == 4
    assert spent(searcher, clock, 16 + 20 + 18, query=51) <= 16 + 20 + 18


def test_where_a_batch_does_not_fit_one_candidate_is_asked_about() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    for query in QUERIES[40:50]:
        searcher.search(query)
    forget(searcher.engine)
    # 2 + 4 + 10, then 16 + 4 a batch, or 4 + 1 for one
    assert searcher.search(QUERIES[50], deadline_ms=16 + 18).scored == 1
    forget(searcher.engine)
    assert searcher.search(QUERIES[51], deadline_ms=16 + 4.5).scored == 0


def test_fusion_and_re_ranking_get_their_share() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    for _ in range(80):
        with searcher._pace.timed("rerank", StageWatch()):
            clock.now += 0.008
    assert searcher.search(QUERIES[50], deadline_ms=25 + 8.2).scored == 8
    assert searcher.search(QUERIES[51], deadline_ms=25).scored == 0


@settings(max_examples=60, deadline=None)
@given(
    costs=st.fixed_dictionaries(
        {step: st.floats(0.0001, 0.05) for step in ("embed", "vision", "prefill", "score")}
    ),
    deadline_ms=st.floats(0.1, 300),
    jitter=st.integers(0, 1000),
    is_cold=st.booleans(),
)
def test_never_later_than_by_one_step(
    costs: dict[str, float], deadline_ms: float, jitter: int, is_cold: bool
) -> None:
    clock = FakeClock(**costs)
    searcher = searcher_on(clock)
    random = np.random.default_rng(jitter)
    for query in QUERIES[:12]:
        clock.costs = {step: cost * random.uniform(0.3, 3) for step, cost in costs.items()}
        if is_cold:
            forget(searcher.engine)
        start, clock.largest = clock.now, 0.0
        searcher.search(query, deadline_ms=deadline_ms)
        late = clock.now - start - deadline_ms / 1000
        assert late <= clock.largest + 1e-9


def test_warming_up_teaches_the_pace_of_a_batch() -> None:
    clock = FakeClock(**COSTS)
    searcher = searcher_on(clock)
    searcher.warm([0])
    assert searcher._pace.expected("prefill") > 0
    assert spent(searcher, clock, 12) <= 12


def test_a_slow_spell_does_not_silence_the_mllm_for_ever() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    clock.costs = {step: 20 * cost for step, cost in COSTS.items()}
    for query in QUERIES[40:]:
        searcher.search(query)
    clock.costs = COSTS
    forget(searcher.engine)
    found = [searcher.search(QUERIES[i % 60], deadline_ms=80).scored for i in range(400)]
    assert found[0] == 0
    assert found[-1] >= 12


def test_with_other_methods_a_deadline_is_as_good() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock, "k-reciprocal")
    found = searcher.search(QUERIES[50], deadline_ms=25)
    assert (found.scored, found.partial) == (8, True)
    assert sum(match.mu is not None for match in found.matches) == 8


@pytest.mark.parametrize(
    ("deadline_ms", "scored"),
    # embed 2 a query + three times 4 + 10 and 4 a batch; what one leaves is there for the next
    [(1, [0, 0, 0]), (6 + 3 * 19, [4, 4, 4]), (6 + 3 * 23, [8, 8, 8]), (1e6, [K, K, K])],
)
def test_queries_together_share_a_deadline(deadline_ms: float, scored: list[int]) -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    start = clock.now
    found = searcher.search_many(QUERIES[50:53], deadline_ms=deadline_ms)
    assert [one.scored for one in found] == scored
    assert [one.partial for one in found] == [count < K for count in scored]
    assert clock.now - start <= max(deadline_ms / 1000, 3 * COSTS["embed"]) + 1e-9


def test_a_query_leaves_its_rest_to_those_after_it() -> None:
    clock = FakeClock(**COSTS)
    searcher = learnt(clock)
    searcher.search(QUERIES[50], deadline_ms=21)  # its prefix is known from here on
    found = searcher.search_many([QUERIES[50], QUERIES[51]], deadline_ms=4 + 2 * 24)
    assert [one.scored for one in found] == [K, 12]  # 20 of 24, then 14 + 12 of 28
    for deadline in (0, float("nan"), "soon"):
        with pytest.raises(InputError, match="deadline_ms"):
            searcher.search_many(QUERIES[:2], deadline_ms=deadline)  # type: ignore[arg-type]


@pytest.mark.parametrize(("deadline_ms", "used_ms"), [(45, 40), (80, 76)])
def test_the_first_deadline_is_used(deadline_ms: float, used_ms: float) -> None:
    """After practice a step that fits is begun; doubts of the first runs left 28 and 60 ms."""
    clock = FakeClock(**COSTS)
    searcher = searcher_on(clock)
    searcher.warm(range(16))
    assert spent(searcher, clock, deadline_ms) == pytest.approx(used_ms)


def test_a_slow_engine_practises_four_times() -> None:
    clock = FakeClock(**{kind: 100 * seconds for kind, seconds in COSTS.items()})
    searcher = searcher_on(clock)
    searcher.warm(range(16))
    assert clock.done["prefill"] == 4

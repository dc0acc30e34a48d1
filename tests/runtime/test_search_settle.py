"""The early stop: the same first ranks as with every candidate seen, proved by trying."""

import itertools
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from search_parts import FakeClock, make_engine, make_images, on_clock

from murank import Searcher
from murank.search.early_stop import Settling

QUERIES = make_images(12, seed=5)


def first_ranks(
    distances: NDArray[np.float32],
    num_candidates: int,
    mu: NDArray[np.float64],
    alpha: float,
    r: int,
) -> list[int]:
    """The first r of a whole fused ranking."""
    fused = distances.astype(np.float64)
    fused[:num_candidates] = (1 - alpha) * fused[:num_candidates] + alpha * 2 * mu
    ranks: list[int] = np.argsort(fused, kind="stable")[:r].tolist()
    return ranks


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(st.integers(0, 20), min_size=2, max_size=9),
    num_candidates=st.integers(1, 6),
    seen=st.integers(0, 6),
    first=st.integers(1, 9),
    alpha=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]),
    data=st.data(),
)
def test_settled_means_that_no_mu_can_change_it(
    values: list[int], num_candidates: int, seen: int, first: int, alpha: float, data: Any
) -> None:
    distances = (np.sort(values) / 10).astype(np.float32)
    k = min(num_candidates, len(distances))
    seen = min(seen, k)
    known = np.array(
        data.draw(st.lists(st.sampled_from([0, 0.3, 1]), min_size=seen, max_size=seen))
    )
    settling = Settling(distances[:k], distances[k : k + first], first=first, alpha=alpha)
    rankings = set()
    # The extremes are where an order breaks, and one value between them.
    for rest in itertools.product([0.0, 0.5, 1.0], repeat=k - seen):
        mu = np.concatenate([known, rest])
        rankings.add(tuple(first_ranks(distances, k, mu, alpha, first)))
    if settling(known):
        assert len(rankings) == 1
    elif seen == k:
        pytest.fail("with all of them seen nothing is open")


def test_it_stops_where_the_candidates_are_far_apart() -> None:
    distances = np.array([0.1, 0.15, 0.9, 1.0, 1.1], np.float32)
    settling = Settling(distances, np.array([1.2], np.float32), first=2, alpha=0.2)
    assert not settling(np.array([0.1]))
    assert settling(np.array([0.1, 0.9]))
    # One that is open still counts as settled where all else lies beyond its worst.
    alone = Settling(np.array([0.1, 1.9], np.float32), np.empty(0, np.float32), first=1, alpha=0.2)
    assert alone(np.empty(0))
    # 0.08 + 0.4 at worst: a tie but for rounding, and the other may have the lower index.
    tie = Settling(
        np.array([0.1], np.float32), np.array([0.480004], np.float32), first=1, alpha=0.2
    )
    assert not tie(np.empty(0))


@pytest.mark.parametrize(("candidates", "first"), [(24, 3), (5, 5), (9, 12)])
def test_same_first_ranks_with_fewer_candidates_seen(candidates: int, first: int) -> None:
    gallery, engine = make_images(60), make_engine()
    options: dict[str, Any] = {
        "candidates": candidates, "method": "simple", "parameters": {"alpha": 0.05}
    }  # fmt: skip
    whole = Searcher.from_images(engine, gallery, **options)
    early = Searcher.from_images(engine, gallery, settle_top=first, **options)
    saved = 0
    for query in QUERIES:
        wanted, found = whole.search(query).matches[:first], early.search(query)
        ranks = found.matches[:first]
        assert [match.corpus_id for match in ranks] == [match.corpus_id for match in wanted]
        assert found.settled == (found.scored < candidates)
        assert not found.partial
        saved += candidates - found.scored
    assert saved > 24 or first > 3
    many = early.search_many(QUERIES[:3])
    assert [one.scored for one in many] == [early.search(query).scored for query in QUERIES[:3]]


def test_easy_queries_need_one_batch() -> None:
    """Each query's own picture is in the gallery, all others far away."""
    gallery = [*QUERIES, *make_images(40, seed=6)]
    engine = make_engine()
    searcher = Searcher.from_images(
        engine, gallery, candidates=20, method="simple", settle_top=1, parameters={"alpha": 0.1}
    )
    for number, query in enumerate(QUERIES):
        found = searcher.search(query)
        assert found.matches[0].corpus_id == number
        assert (found.scored, found.settled) == (4, True)
    assert {shape[1] for shape in cast("Any", engine.scorer).decoder.runs} == {4}


def test_a_deadline_and_an_early_stop_go_together() -> None:
    clock = FakeClock(score=0.001)
    gallery = [*QUERIES, *make_images(40, seed=6)]
    with on_clock(clock):
        searcher = Searcher.from_images(
            make_engine(clock), gallery, candidates=20, method="simple", settle_top=1,
            parameters={"alpha": 0.1},
        )  # fmt: skip
    found = searcher.search(QUERIES[0], deadline_ms=100)
    assert (found.scored, found.settled, found.partial) == (4, True, False)


def test_what_is_no_candidate_has_a_say_too() -> None:
    """The last candidate may fall behind the nearest image that is none."""
    engine, query = make_engine(), QUERIES[0]
    toward = engine.embed([query])[0].astype(np.float64)
    aside = np.roll(toward, 1) - np.dot(np.roll(toward, 1), toward) * toward
    aside /= np.linalg.norm(aside)
    angles = 2 * np.arcsin(np.array([0.1, 0.2, 0.4, 0.6, 1.0, 1.005]) / 2)
    features = np.cos(angles)[:, None] * toward + np.sin(angles)[:, None] * aside
    images = [query, query, query, query, 255 - query, query]
    searcher = Searcher(
        engine, features.astype(np.float32), images, candidates=5, method="simple", settle_top=5,
        parameters={"alpha": 0.01},
    )  # fmt: skip
    found = searcher.search(query)
    assert [match.corpus_id for match in found.matches] == [0, 1, 2, 3, 5, 4]
    assert (found.scored, found.settled) == (5, False)

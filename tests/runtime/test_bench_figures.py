"""Quantiles by nearest rank, stages, deadlines, and the spread of a ratio."""

import math
from fractions import Fraction

import numpy as np
import pytest
from bench_fakes import sample

from murank.bench import figures as _figures
from murank.bench.bench_settings import BenchSettings
from murank.bench.figures import (
    latency_figures,
    nearest_rank,
    quantile,
    ratio_interval,
    section_of,
    server_figures,
)
from murank.bench.samples import TimedAnswer
from murank.bench.schema import Target


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 99, 100, 101, 1000, 12345])
def test_nearest_rank_is_that_of_whole_numbers(count: int) -> None:
    for percent in (1, 50, 90, 95, 99, 100):
        exact = max(1, math.ceil(Fraction(percent, 100) * count)) - 1
        assert nearest_rank(count, percent / 100) == exact


def test_quantiles_are_values_that_were_measured() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1, 201))
    assert quantile(values, 0.5) == 100
    assert quantile(values, 0.99) == 198
    found = latency_figures(values / 1e3)
    assert found.count == 200
    assert (found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms, found.max_ms) == pytest.approx(
        (100, 180, 190, 198, 200)
    )
    assert found.mean_ms == pytest.approx(100.5)


def test_section() -> None:
    samples = [
        sample(0.1, answer=TimedAnswer({"embed": 0.02, "score": 0.05}, 20, 20)),
        sample(0.3, answer=TimedAnswer({"embed": 0.04}, 10, 20)),
    ]
    found = section_of(samples, BenchSettings())
    assert found.queries == 2
    assert found.seconds == pytest.approx(0.4)
    assert found.throughput_qps == pytest.approx(5.0)
    assert found.cpu_ms_per_query == pytest.approx(400)
    assert found.scored_per_query == 15
    assert found.latencies_us == [100_000, 300_000]
    assert list(found.stages) == ["embed", "score"]
    embed, score = found.stages["embed"], found.stages["score"]
    assert (embed.mean_ms, embed.p50_ms, embed.p99_ms) == pytest.approx((30, 20, 40))
    assert embed.share == pytest.approx(0.06 / 0.4)
    assert (score.mean_ms, score.p50_ms, score.p99_ms) == pytest.approx((25, 0, 50))
    assert found.deadline is None
    assert found.server is None


def test_waiting_is_no_stage_and_idle_time_counts_where_others_decide_when() -> None:
    samples = [sample(0.5, service=0.1, ended=1.0), sample(0.1, ended=4.0)]
    found = section_of(samples, BenchSettings(), "Server")
    assert found.throughput_qps == pytest.approx(0.5)
    # Of 0.2 s of service: 0.25 of each latency was embedding in this fake.
    assert found.stages["embed"].share == pytest.approx((0.125 + 0.025) / 0.2)


def test_deadlines() -> None:
    partial = TimedAnswer({}, 12, 20)
    samples = [
        sample(0.1),
        sample(0.2, answer=partial, overshoot=0.01),
        sample(0.1, answer=partial),
    ]
    found = section_of(samples, BenchSettings(deadline_ms=190)).deadline
    assert found is not None
    assert (found.deadline_ms, found.partial, found.late) == (190, 2, 1)
    assert found.largest_overshoot_ms == pytest.approx(10)


@pytest.mark.parametrize(
    ("count", "late", "unanswered", "verdict", "least"),
    [
        (2, 0, 0, "undecided", 662),
        (661, 0, 0, "undecided", 662),  # LoadGen takes 459 of which none is late
        (662, 1, 0, "valid", 662),
        (662, 2, 0, "undecided", 838),
        (838, 2, 0, "valid", 838),
        (1000, 10, 0, "undecided", None),  # p99 is within the bound, and might not be
        (1000, 11, 0, "invalid", None),
        (662, 0, 1, "invalid", 662),
        (2, 1, 0, "undecided", 662),  # one of two, and 2 of 100 (26 %) may be chance
        (100, 2, 0, "undecided", 838),
        (2, 2, 0, "invalid", 838),  # chance in 1 of 10,000 cases
        (100, 20, 0, "invalid", None),
    ],
)
def test_server(count: int, late: int, unanswered: int, verdict: str, least: int | None) -> None:
    settings = BenchSettings(scenario="Server", qps=1.0)
    samples = [*[sample(1.0)] * (count - late), *[sample(1.001)] * late]
    found = server_figures(samples, count + unanswered, settings)
    assert found.verdict == verdict
    assert (found.scheduled, found.unanswered) == (count + unanswered, unanswered)
    assert (found.latency_bound_ms, found.late) == (1000, late)
    assert least in (None, found.least_queries)


def test_arrival_waiting_and_service_are_apart() -> None:
    samples = [sample(0.5, service=0.1, ended=1.0), sample(0.1, ended=4.0)]
    found = section_of(samples, BenchSettings(), "Server")
    assert found.latencies_us == [500_000, 100_000]
    assert found.arrivals_us == [500_000, 3_900_000]
    assert found.waits_us == [400_000, 0]
    assert found.services_us == [100_000, 100_000]
    assert found.target == Target(0.99, 662)


def test_what_a_scenario_is_judged_by() -> None:
    samples = [sample(0.1 + 0.001 * number) for number in range(700)]
    single, offline = (
        section_of(samples, BenchSettings(), name) for name in ("SingleStream", "Offline")
    )
    assert (single.target, offline.target) == (Target(0.9, 64), None)
    # Of 700 answers 51 may be above p90, and one above p99.
    latency = single.latency
    assert latency.p90_early_ms == pytest.approx(100 + 700 - 51)
    assert latency.p99_early_ms == pytest.approx(100 + 700 - 1)
    assert offline.latency.p90_early_ms is offline.latency.p99_early_ms is None


def test_a_server_that_was_interrupted_is_neither_valid_nor_invalid() -> None:
    settings = BenchSettings(scenario="Server", qps=1.0)
    found = server_figures([sample(0.1)], 3, settings, interrupted=True)
    assert (found.verdict, found.scheduled, found.unanswered) == ("interrupted", 3, 2)


def test_many_latencies_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_figures, "_MOST_KEPT", 100)
    samples = [sample(number / 1e6) for number in range(250)]
    found = section_of(samples, BenchSettings())
    assert found.latencies_us == list(range(0, 250, 3))
    assert found.latency.count == 250


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_interval_is_that_of_resampling(share: float) -> None:
    """Against the bootstrap as textbooks have it: n values with replacement, many times."""
    random = np.random.default_rng(3)
    before, after = random.gamma(4.0, 10.0, 60), 1.2 * random.gamma(4.0, 10.0, 45)

    def drawn(values: np.ndarray) -> np.ndarray:
        again = np.sort(values[random.integers(0, len(values), (20_000, len(values)))], axis=1)
        return again[:, nearest_rank(len(values), share)]

    expected = np.quantile(drawn(after) / drawn(before), (0.025, 0.975))
    found = ratio_interval(before, after, share)
    assert found is not None
    assert found == pytest.approx(tuple(expected), rel=0.03)
    assert ratio_interval(before, after, share) == ratio_interval(before, after, share)


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        before, after = random.lognormal(0, 0.3, 80), 1.5 * random.lognormal(0, 0.3, 80)
        found = ratio_interval(before, after)
        assert found is not None
        held += found[0] <= 1.5 <= found[1]
    assert 180 <= held <= 199  # 95 %: 190, standard deviation 3


def test_draws_of_three_values_are_as_frequent_as_they_must_be() -> None:
    """The median of three draws is the smallest value if two are: 7 of 27 cases."""
    drawn = _figures._draws(np.array([30, 10, 20]), 0.5, np.random.default_rng(0))
    shares = [float((drawn == value).mean()) for value in (10, 20, 30)]
    assert shares == pytest.approx([7 / 27, 13 / 27, 7 / 27], abs=0.03)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (4, 100), (100, 4)])
def test_few_samples_have_no_interval(before: int, after: int) -> None:
    assert ratio_interval(np.arange(1, before + 1), np.arange(1, after + 1)) is None
    assert ratio_interval(np.arange(1, 6), np.arange(1, 6)) is not None

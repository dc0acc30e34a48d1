"""What a scenario is judged by decides a comparison, too: a few slow answers are seen."""

from dataclasses import replace

import numpy as np
import pytest
from bench_fakes import report, sample, settings_record

from murank.bench.bench_settings import BenchSettings, Scenario
from murank.bench.figures import mean_ratio_interval, section_of, server_figures
from murank.bench.report_comparison import compare
from murank.bench.samples import TimedAnswer
from murank.bench.scenarios import BLOCK
from murank.bench.schema import BenchReport


def measured(
    scenario: Scenario, count: int, slow: int, *, seed: int = 0, qps: float | None = None
) -> BenchReport:
    """Answers of about 50 ms, of which the slowest `slow` took four times as long."""
    latencies = np.sort(0.05 * np.random.default_rng(seed).lognormal(0, 0.05, count))
    latencies[count - slow :] *= 4
    one = section_of([sample(float(seconds)) for seconds in latencies], BenchSettings(), scenario)
    return report(one, settings=settings_record(scenario=scenario, qps=qps))


@pytest.mark.parametrize(
    ("scenario", "count", "slow", "named"),
    [
        ("SingleStream", 40, 5, "cached p90_ms, early stopping"),
        ("SingleStream", 64, 8, "cached p90_ms, early stopping"),
        ("SingleStream", 300, 36, "cached p90_ms, early stopping"),
        ("SingleStream", 3000, 360, "cached p90_ms"),
        ("MultiStream", 100, 12, "cached p99_ms"),
        ("MultiStream", 700, 84, "cached p99_ms"),
        ("Server", 1000, 15, "cached p99_ms, early stopping"),
        ("Server", 20_000, 300, "cached p99_ms"),
    ],
)
def test_the_slowest_are_slower(scenario: Scenario, count: int, slow: int, named: str) -> None:
    before, after = measured(scenario, count, 0), measured(scenario, count, slow, seed=1)
    found = compare(before, after)
    assert found.verdict == "regression"
    assert named in found.slower
    assert "cached p50_ms" not in found.slower
    assert compare(after, before).verdict == "improvement"


@pytest.mark.parametrize(("count", "slow"), [(20, 1), (64, 1), (300, 6), (3000, 200)])
def test_fewer_than_the_scenario_looks_at(count: int, slow: int) -> None:
    """One answer of 64 that is slow may be chance; 2 or 7 % are beyond p90."""
    before, after = measured("SingleStream", count, 0), measured("SingleStream", count, slow)
    assert compare(before, after).verdict == "no difference"


def test_the_rank_of_an_estimate_is_that_of_the_fewer_samples() -> None:
    """The estimate itself is the largest of 64, and the 930th of 10,000: another thing."""
    many = section_of([sample(0.05 + 0.00001 * n) for n in range(10_000)], BenchSettings())
    few = section_of([sample(0.05 + 0.00001 * n) for n in range(78, 10_000, 157)], BenchSettings())
    assert few.latency.count == 64
    for first, second in ((few, many), (many, few)):
        found = compare(report(first), report(second))
        (tail,) = (one for one in found.ratios if one.name == "cached p90_ms, early stopping")
        assert tail.ratio == pytest.approx(1, abs=0.01)  # the few are 0.5 % apart
        assert found.verdict == "no difference"


@pytest.mark.parametrize("count", [40, 63])
def test_few_samples_are_told_of(count: int) -> None:
    few = measured("SingleStream", count, 0)
    (note,) = compare(few, few).warnings
    assert f"cached has {count} and {count}" in note
    assert "64" in note


def offline(slow: int) -> BenchReport:
    samples, end = [], 0.0
    for number in range(50):
        spent = BLOCK * 0.01 * (4 if number < slow else 1) * (1 + 0.001 * number)
        end += spent
        seen = TimedAnswer({}, 20 * BLOCK, 20 * BLOCK)
        samples.append(sample(end, queries=BLOCK, service=spent, ended=end, answer=seen))
    section = section_of(samples, BenchSettings(scenario="Offline"), "Offline")
    return report(section, settings=settings_record(scenario="Offline"))


def test_slow_blocks_are_in_the_throughput() -> None:
    found = compare(offline(0), offline(6))
    assert found.slower == ("cached throughput_qps",)
    (throughput,) = (one for one in found.ratios if one.name == "cached throughput_qps")
    assert throughput.ratio == pytest.approx(50 / (44 + 6 * 4), rel=0.01)
    assert throughput.ratio is not None
    assert throughput.low is not None
    assert throughput.high is not None
    assert throughput.low < throughput.ratio < throughput.high < 1 / 1.1
    assert compare(offline(6), offline(0)).verdict == "improvement"
    assert compare(offline(0), offline(1)).verdict == "no difference"


def test_the_interval_of_a_ratio_of_means_is_that_of_the_normal_distribution() -> None:
    random = np.random.default_rng(2)
    before, after = random.normal(10, 1, 400), random.normal(12, 1, 400)
    found = mean_ratio_interval(before, after)
    assert found is not None
    ratio = after.mean() / before.mean()
    spread = ratio * np.hypot(before.std() / before.mean(), after.std() / after.mean()) / 20
    assert found == pytest.approx((ratio - 1.96 * spread, ratio + 1.96 * spread), abs=0.1 * spread)
    assert mean_ratio_interval(before[:4], after) is None


def served(count: int, late: int, *, unanswered: int = 0, bound_ms: float = 60.0) -> BenchReport:
    asked = BenchSettings(scenario="Server", qps=9.0, latency_bound_ms=bound_ms)
    samples = [*[sample(0.0595)] * (count - late), *[sample(0.0605)] * late]
    section = section_of(samples, asked, "Server")
    fared = server_figures(samples, count + unanswered, asked)
    settings = settings_record(scenario="Server", qps=9.0)
    return report(replace(section, server=fared), settings=settings)


VERDICT = "cached Server verdict, {}"


def test_a_server_that_became_invalid() -> None:
    """By one millisecond, far below the threshold."""
    valid, invalid, undecided = served(700, 1), served(700, 70), served(700, 5)
    found = compare(valid, invalid)
    assert found.verdict == "regression"
    assert found.slower == (VERDICT.format("valid and invalid"),)
    assert compare(invalid, valid).verdict == "improvement"
    assert compare(undecided, invalid).slower == (VERDICT.format("undecided and invalid"),)
    assert compare(invalid, invalid).verdict == "no difference"
    found = compare(valid, undecided)
    assert found.verdict == "no difference"
    assert found.warnings == ("the verdicts of Server are valid and undecided",)


def test_a_server_that_stopped_answering_decides_alone() -> None:
    found = compare(served(3, 0), served(3, 0, unanswered=9))
    assert found.verdict == "regression"
    assert found.slower == (VERDICT.format("undecided and invalid"),)


def test_verdicts_of_two_bounds_are_not_compared() -> None:
    found = compare(served(700, 0), served(700, 70, bound_ms=30.0))
    assert found.verdict == "no difference"
    assert "60 and 30 ms" in found.warnings[0]

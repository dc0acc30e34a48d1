"""Two reports: what is slower, what is not, and what cannot be compared."""

import re
from dataclasses import replace

import numpy as np
import pytest
from bench_fakes import environment, report, sample, settings_record

from murank import InputError
from murank.bench import figures as _figures
from murank.bench import ratios as _ratios
from murank.bench.bench_settings import BenchSettings
from murank.bench.figures import section_of, server_figures
from murank.bench.report_comparison import Comparison, compare
from murank.bench.samples import TimedAnswer
from murank.bench.scenarios import BLOCK
from murank.bench.schema import BenchReport, ColdFigures, Section


def section(scale: float, count: int = 200, *, spread: float = 0.1, seed: int = 0) -> Section:
    random = np.random.default_rng(seed)
    latencies = scale * 0.05 * random.lognormal(0, spread, count)
    return section_of([sample(float(one)) for one in latencies], BenchSettings())


DECIDING = ("cached p50_ms", "cached p90_ms", "cached p90_ms, early stopping")


def ratio(found: Comparison, name: str) -> float:
    (one,) = (one for one in found.ratios if one.name == name)
    assert one.ratio is not None
    return one.ratio


def test_the_same_is_no_regression() -> None:
    found = compare(report(section(1.0)), report(section(1.0)))
    assert found.verdict == "no difference"
    assert found.slower == found.warnings == ()
    assert ratio(found, "cached p50_ms") == 1


@pytest.mark.parametrize(
    ("scale", "verdict"),
    [(1.05, "no difference"), (1.3, "regression"), (0.7, "improvement"), (0.95, "no difference")],
)
def test_verdicts(scale: float, verdict: str) -> None:
    found = compare(report(section(1.0)), report(section(scale, seed=1)))
    assert found.verdict == verdict
    assert found.slower == (DECIDING if verdict == "regression" else ())
    assert ratio(found, "cached p50_ms") == pytest.approx(scale, rel=0.05)
    assert ratio(found, "cached mean_ms") == pytest.approx(scale, rel=0.05)
    assert ratio(found, "cached throughput_qps") == pytest.approx(1 / scale, rel=0.05)
    assert ratio(found, "cached cpu_ms_per_query") == pytest.approx(scale, rel=0.05)
    assert ratio(found, "cached embed mean_ms") == pytest.approx(scale, rel=0.05)


def test_an_uncertain_ratio_is_no_regression() -> None:
    """Medians 30 % apart, of five samples all over the place."""
    before = section(1.0, 5, spread=1.0, seed=1)
    after = section(1.3, 5, spread=1.0, seed=1)
    found = compare(report(before), report(after))
    assert ratio(found, "cached p50_ms") == pytest.approx(1.3)
    (median,) = (one for one in found.ratios if one.name == "cached p50_ms")
    assert median.low is not None
    assert median.low < 1.1
    assert found.verdict == "no difference"


def test_the_uncached_section_counts_too() -> None:
    before = report(section(1.0), uncached=section(1.0))
    after = report(section(0.5), uncached=section(2.0))
    found = compare(before, after)
    assert found.verdict == "regression"
    assert found.slower == tuple(name.replace("cached", "uncached") for name in DECIDING)


def test_a_threshold_of_ones_own() -> None:
    before, after = report(section(1.0)), report(section(1.3, seed=1))
    assert compare(before, after, threshold=1.5).verdict == "no difference"
    for wrong in (0.9, float("nan")):
        with pytest.raises(InputError, match="--threshold must be at least 1"):
            compare(before, after, threshold=wrong)


def test_memory_cold_starts_and_sweeps() -> None:
    cold = ColdFigures(3, 200.0, 50.0, 10.0, 40.0, 20.0, 300.0)
    sweep = {"1": section(1.0), "5": section(1.0)}
    before = report(section(1.0), cold=cold, sweep=sweep)
    after = replace(before, cold=replace(cold, answered_ms=450.0), sweep={"5": section(3.0)})
    found = compare(before, after)
    assert ratio(found, "cold answered_ms") == 1.5
    assert ratio(found, "memory peak_bytes") == 1
    assert ratio(found, "5 candidates: median ms") == pytest.approx(3)
    assert {"memory device_bytes", "1 candidates: median ms"}.isdisjoint(
        one.name for one in found.ratios
    )
    assert found.verdict == "no difference"  # neither decides


def offline_report(seconds_a_query: float, queries: int) -> BenchReport:
    samples, end = [], 0.0
    for start in range(0, queries, BLOCK):
        size = min(BLOCK, queries - start)
        spent = size * seconds_a_query
        end += spent
        seen = TimedAnswer({}, 20 * size, 20 * size)
        samples.append(sample(end, queries=size, service=spent, ended=end, answer=seen))
    asked = BenchSettings(scenario="Offline")
    return report(
        section_of(samples, asked, "Offline"), settings=settings_record(scenario="Offline")
    )


def test_offline_is_compared_by_its_pace() -> None:
    """Twice as slow, half as many queries: latencies from the beginning look the same."""
    found = compare(offline_report(0.01, 3200), offline_report(0.02, 1600))
    assert ratio(found, OFFLINE) == pytest.approx(2)
    assert found.verdict == "regression"
    assert found.slower == (OFFLINE, "cached throughput_qps")
    assert "cached p50_ms" not in {one.name for one in found.ratios}


@pytest.mark.parametrize(("before", "after"), [(30, 15), (32, 16), (320, 20), (40, 20)])
def test_one_block_shows_how_slow_a_query_is(before: int, after: int) -> None:
    """A block takes as long as before, with half the queries in it; one is too few to judge by."""
    found = compare(offline_report(0.1, before), offline_report(0.2, after))
    assert ratio(found, OFFLINE) == pytest.approx(2)
    assert found.verdict == "undecided"
    assert found.warnings[0].startswith("too few samples: cached has ")
    assert found.warnings[0].endswith(
        "1 blocks, and decides nothing below 5; measure with a longer --duration"
    )


def test_a_last_block_that_is_shorter_is_left_out() -> None:
    slow_end = offline_report(0.1, 5 * BLOCK + 1)
    assert slow_end.cached is not None
    *ends, last = slow_end.cached.latencies_us
    cached = replace(slow_end.cached, latencies_us=[*ends, 9 * last])
    found = compare(offline_report(0.1, 5 * BLOCK), replace(slow_end, cached=cached))
    assert ratio(found, OFFLINE) == pytest.approx(1)
    assert found.verdict == "no difference"


def test_thinned_blocks_hold_the_queries_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    before = offline_report(0.1, 40 * BLOCK)
    monkeypatch.setattr(_figures, "_MOST_KEPT", 20)
    after = offline_report(0.1, 40 * BLOCK)
    assert after.cached is not None
    assert len(after.cached.latencies_us) == 20
    assert _ratios._of_blocks(after.cached) == pytest.approx(1e5)
    monkeypatch.undo()
    assert before.cached is not None
    assert _ratios._of_blocks(before.cached) == pytest.approx(1e5)


OFFLINE = "cached p50_ms a query of a block"


def in_time(scored: int, count: int = 50, *, late: int = 0, seconds: float = 0.15) -> BenchReport:
    """All answers in 150 ms, of which the MLLM saw `scored` of 20 candidates."""
    asked = BenchSettings(deadline_ms=150.0)
    samples = [
        sample(seconds, answer=TimedAnswer({}, scored, 20), overshoot=0.01 * (number < late))
        for number in range(count)
    ]
    return report(section_of(samples, asked), settings=settings_record(deadline_ms=150.0))


@pytest.mark.parametrize(
    ("scored", "verdict"),
    [(20, "no difference"), (19, "no difference"), (10, "regression"), (0, "regression")],
)
def test_under_a_deadline_a_slower_engine_sees_fewer(scored: int, verdict: str) -> None:
    found = compare(in_time(20), in_time(scored, late=5))
    assert ratio(found, "cached p50_ms") == 1
    assert ratio(found, "cached scored_per_query") == scored / 20
    assert found.verdict == verdict
    assert found.slower == (("cached scored_per_query",) if verdict == "regression" else ())
    shares = {one.name: (one.before, one.after) for one in found.ratios if "share" in one.name}
    assert shares == {
        "cached partial share": (0, float(scored < 20)),
        "cached late share": (0, 0.1),
    }


def test_a_faster_engine_sees_more() -> None:
    assert compare(in_time(10), in_time(20)).verdict == "improvement"
    # What is slower weighs more than what is faster.
    assert compare(in_time(10), in_time(20, seconds=0.3)).verdict == "regression"


def test_fewer_candidates_that_were_asked_for_are_not_slower() -> None:
    after = in_time(10)
    after = replace(after, settings=replace(after.settings, candidates=10))
    assert compare(in_time(20), after, force=True).verdict == "no difference"


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 100), (100, 4)])
def test_few_samples_decide_nothing(before: int, after: int) -> None:
    found = compare(in_time(20, before), in_time(10, after, seconds=0.6))
    assert found.verdict == "undecided"
    assert found.slower == ()
    assert all(one.low is one.high is None for one in found.ratios)
    assert found.warnings == (
        f"too few samples: cached has {before} and {after} samples, and decides nothing below 5; "
        "measure with a longer --duration",
    )


def test_a_section_of_few_samples_leaves_the_verdict_to_the_other() -> None:
    before = report(section(1.0), uncached=section(1.0, 3))
    after = report(section(1.0), uncached=section(9.0, 3))
    found = compare(before, after)
    assert found.verdict == "no difference"
    assert found.warnings[0].startswith("too few samples: uncached has 3 and 3 samples")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": "Offline"}, "scenario is SingleStream and Offline"),
        ({"candidates": 10}, "candidates is 20 and 10"),
        ({"gallery_size": 9, "gallery_pool": 9}, "gallery_size is 1000 and 9; gallery_pool is 80"),
        ({"deadline_ms": 50.0}, "deadline_ms is None and 50.0"),
    ],
)
def test_other_loads(changes: dict[str, object], message: str) -> None:
    before = report(section(1.0))
    after = report(section(1.0), settings=settings_record(**changes))
    with pytest.raises(InputError, match=f"different loads: {re.escape(message)}.*pass --force"):
        compare(before, after)
    found = compare(before, after, force=True)
    assert any(message.split("; ")[0] in warning for warning in found.warnings)


def test_other_environments_are_noted() -> None:
    before = report(section(1.0))
    after = report(
        section(1.0),
        environment=environment(
            cores=4, providers={"encoder": ["CUDAExecutionProvider", "CPUExecutionProvider"]},
            engine_sha256="1" * 64, load_average=7.0, started="2027-01-01T00:00:00+00:00",
        ),
    )  # fmt: skip
    assert compare(before, after).warnings == (
        "the second report was measured on a busy machine: load average 7.0 on 4 cores",
        "another environment: cores is 2 and 4",
        "another environment: providers is encoder CPUExecutionProvider and encoder "
        "CUDAExecutionProvider+CPUExecutionProvider",
        "another environment: engine_sha256 is 000000000000 and 111111111111",
    )


def test_runs_that_did_not_end_well_are_noted() -> None:
    asked = BenchSettings(scenario="Server", qps=9.0)
    stuck = section(1.0)
    stuck = replace(stuck, server=server_figures([sample(0.05)] * 200, 500, asked))
    found = compare(report(section(1.0), status="interrupted"), report(stuck))
    assert found.warnings == (
        "the first report was interrupted",
        "the second report could not keep up: 300 of 500 queries were never answered",
    )


def test_an_interrupted_server_is_not_said_to_have_fallen_behind() -> None:
    asked = BenchSettings(scenario="Server", qps=9.0)
    stopped = section(1.0)
    stopped = replace(
        stopped, server=server_figures([sample(0.05)] * 200, 203, asked, interrupted=True)
    )
    found = compare(report(section(1.0)), report(stopped, status="interrupted"))
    assert found.warnings == ("the second report was interrupted",)


def test_nothing_in_common() -> None:
    cold = ColdFigures(1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(InputError, match="no section in common"):
        compare(report(None, cold=cold), report(section(1.0), cold=cold))

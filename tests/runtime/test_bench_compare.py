"""Two reports: what is slower, what is not, and what cannot be compared."""

import re
from dataclasses import replace

import numpy as np
import pytest
from bench_fakes import environment, report, sample, settings_record

from murank import InputError
from murank.bench._compare import Comparison, compare
from murank.bench._figures import section_of, server_figures
from murank.bench._schema import ColdFigures, Report, Section
from murank.bench._settings import BenchSettings


def section(scale: float, count: int = 200, *, spread: float = 0.1, seed: int = 0) -> Section:
    random = np.random.default_rng(seed)
    latencies = scale * 0.05 * random.lognormal(0, spread, count)
    return section_of([sample(float(one)) for one in latencies], BenchSettings())


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
    assert found.slower == (("cached p50_ms",) if verdict == "regression" else ())
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
    assert found.slower == ("uncached p50_ms",)


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


def offline_report(seconds_a_block: float, blocks: int) -> Report:
    ends = seconds_a_block * np.arange(1, blocks + 1)
    samples = [sample(float(end), service=seconds_a_block, ended=float(end)) for end in ends]
    asked = BenchSettings(scenario="Offline")
    return report(
        section_of(samples, asked, closed=False), settings=settings_record(scenario="Offline")
    )


def test_offline_is_compared_by_its_pace() -> None:
    """Twice as slow, half as many queries: latencies from the beginning look the same."""
    found = compare(offline_report(0.1, 100), offline_report(0.2, 50))
    assert ratio(found, "cached block p50_ms") == pytest.approx(2)
    assert found.verdict == "regression"
    assert "cached p50_ms" not in {one.name for one in found.ratios}
    assert compare(offline_report(0.1, 1), offline_report(0.1, 1)).verdict == "no difference"


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
        "another environment: cores is 2 and 4",
        "another environment: providers is encoder CPUExecutionProvider and encoder "
        "CUDAExecutionProvider+CPUExecutionProvider",
        "another environment: engine_sha256 is 000000000000 and 111111111111",
    )


def test_runs_that_did_not_end_well_are_noted() -> None:
    asked = BenchSettings(scenario="Server", qps=9.0)
    stuck = section(1.0)
    stuck = replace(stuck, server=server_figures(stuck, 500, asked))
    found = compare(report(section(1.0), status="interrupted"), report(stuck))
    assert found.warnings == (
        "the first report was interrupted",
        "the second report could not keep up: 300 of 500 queries were never answered",
    )


def test_nothing_in_common() -> None:
    cold = ColdFigures(1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(InputError, match="no section in common"):
        compare(report(None, cold=cold), report(section(1.0), cold=cold))

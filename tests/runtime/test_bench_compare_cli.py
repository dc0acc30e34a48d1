"""`murank bench compare`: what it prints, and how it ends."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_fakes import report, sample
from refusal import Refuse

from murank.bench.bench_settings import BenchSettings
from murank.bench.figures import section_of
from murank.bench.report_files import load_report, write_report
from murank.cli import main

MANIFEST = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine" / "manifest.json"


def reports(folder: Path, *scales: float, count: int = 20, **changes: Any) -> list[str]:
    paths = []
    for number, scale in enumerate(scales):
        one = section_of([sample(scale * (1 + 0.01 * n)) for n in range(count)], BenchSettings())
        path = folder / f"{number}.json"
        write_report(path, report(one, **changes))
        paths.append(str(path))
    return paths


def test_compare_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = reports(tmp_path, 0.1, 0.2)
    assert main(["bench", "compare", first, second]) == 5
    out, err = capsys.readouterr()
    assert "verdict: regression (threshold 1.1)" in out
    assert f"{second} is slower than {first}" in err
    assert "cached p50_ms" in err
    assert main(["bench", "compare", second, first]) == 0
    assert "verdict: improvement" in capsys.readouterr().out
    assert main(["bench", "compare", first, second, "--threshold", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "no difference"
    (median,) = (one for one in said["ratios"] if one["name"] == "cached p50_ms")
    assert median["ratio"] == pytest.approx(2)
    assert median["low"] < 2 < median["high"]


def test_compare_of_too_few_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = reports(tmp_path, 0.1, 0.2, count=4)
    assert main(["bench", "compare", first, second]) == 2
    out, err = capsys.readouterr()
    assert "note: too few samples: cached has 4 and 4 samples" in out
    assert "verdict: undecided" in out
    assert "2.000" in out
    assert err.count("\n") == 1
    assert err.startswith("undecided: ")
    assert "hold too few samples; run both for longer (--duration)" in err


def test_compare_what_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    (first,) = reports(tmp_path, 0.1)
    refuse("bench", "compare", first, names="B.json")
    refuse("bench", "compare", first, tmp_path / "none", names=tmp_path / "none")
    refuse("bench", "compare", first, first, "--threshold", "0.5", names="--threshold")
    refuse("bench", "compare", first, MANIFEST, names=MANIFEST)
    other = tmp_path / "other"
    other.mkdir()
    section = load_report(Path(first)).cached
    settings = replace(load_report(Path(first)).settings, candidates=5)
    write_report(other / "a.json", report(section, settings=settings))
    refuse("bench", "compare", first, other / "a.json", names="candidates")
    assert main(["bench", "compare", first, str(other / "a.json"), "--force"]) == 0
    assert "note: another load: candidates is 20 and 5" in capsys.readouterr().out

"""`murank bench`: refuses before it loads anything, measures, compares."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_fakes import report, sample
from engine_folder import make_engine
from refusal import Refuse

from murank.bench import run as _run
from murank.bench import subject as _subject
from murank.bench.bench_settings import BenchSettings
from murank.bench.figures import section_of, server_figures
from murank.bench.report_files import load_report
from murank.bench.schema import BenchReport, ColdFigures
from murank.cli import bench as _bench
from murank.cli import main
from murank.cli.bench_report import report_lines
from murank.folder.manifest import Manifest, manifest_bytes, read_manifest
from murank.search import Searcher

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
SHORT = ("--duration", "0.2", "--warmup", "0.05", "--candidates", "4", "--gallery-size", "50",
         "--providers", "cpu", "--threads", "1", "--quiet")  # fmt: skip


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that may be looked at, not loaded."""

    def measured(*_: Any, **__: Any) -> None:
        raise AssertionError("the engine was measured")

    make_engine(tmp_path / "engine")
    monkeypatch.setattr(_bench, "run_bench", measured)
    return tmp_path / "engine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--duration", "0"], "--duration"),
        (["--duration", "nan"], "--duration"),
        (["--warmup", "-1"], "--warmup"),
        (["--uncached-share", "1"], "--uncached-share"),
        (["--candidates", "0"], "--candidates"),
        (["--gallery-size", "0", "--candidates", "0"], "--candidates"),
        (["--gallery-size", "19"], "20 candidates are more than the 19 images of the gallery"),
        (["--seed", "-1"], "--seed"),
        (["--qps", "5"], "--qps"),
        (["--scenario", "Server"], "--scenario"),
        (["--scenario", "Server", "--qps", "0"], "--qps"),
        (["--scenario", "Server", "--qps", "-2"], "--qps"),
        (["--scenario", "Server", "--qps", "inf"], "--qps"),
        (["--scenario", "Server", "--qps", "5000"], "are 50000 queries, and at most 20000 images"),
        (["--scenario", "MultiStream", "--streams", "20001"], "--streams"),
        (["--threads", "0"], "--threads"),
        (["--threads", "x"], "--threads"),
        (["--threads", "100000"], "--threads"),
        (["--latency-bound-ms", "9"], "--latency-bound-ms"),
        (["--streams", "4"], "--streams"),
        (["--scenario", "MultiStream", "--streams", "0"], "--streams"),
        (["--deadline-ms", "0"], "--deadline-ms"),
        (["--deadline-ms", "nan"], "--deadline-ms"),
        (["--scenario", "Offline", "--deadline-ms", "9"], "--deadline-ms"),
        (["--method", "none", "--deadline-ms", "9"], "here the MLLM sees none"),
        (
            ["--expect-dtype", "int8"],
            "is fp16, not int8: an engine has one precision",
        ),
        (["--expect-dtype", "fp64"], "--expect-dtype"),
        (["--scenario", "server"], "--scenario"),
        (["--skip-cold", "--cold-runs", "2"], "--cold-runs"),
        (["--sha256", "0" * 64], "is another engine"),
        (["--plot", "a.pdf"], "--plot"),
    ],
)
def test_options_that_cannot_be(
    engine: Path, refuse: Refuse, options: list[str], message: str
) -> None:
    refuse("bench", engine, *options, names=message)


def test_a_gallery_beyond_memory(tmp_path: Path, refuse: Refuse) -> None:
    make_engine(tmp_path)
    refuse("bench", tmp_path, "--gallery-size", 10**11, names="--gallery-size")


def test_no_engine(tmp_path: Path, refuse: Refuse) -> None:
    refuse("bench", tmp_path, names="manifest.json")
    refuse("bench", tmp_path / "none", names=tmp_path / "none")
    refuse("bench", names="ENGINE")


def test_methods_that_an_engine_cannot_do(engine: Path, refuse: Refuse) -> None:
    whole = read_manifest(engine)

    def become(manifest: Manifest) -> None:
        (engine / "manifest.json").write_bytes(manifest_bytes(manifest))

    become(replace(whole, scorer=None))
    refuse("bench", engine, "--method", "simple", names="--method")
    refuse("bench", engine, "--deadline-ms", "5", names="here the MLLM sees none")
    become(replace(whole, encoder=None))
    refuse("bench", engine, "--method", "none", names="--method")


def test_outputs_that_cannot_be(engine: Path, tmp_path: Path, refuse: Refuse) -> None:
    there = tmp_path / "there.json"
    there.write_text("mine")
    refuse("bench", engine, "--json", there, names=there)
    refuse("bench", engine, "--json", engine / "a.json", names="--json")
    refuse("bench", engine, "--plot", engine / "a.png", names="--plot")
    refuse("bench", engine, "--json", there / "a.json", names=there)
    assert there.read_text() == "mine"


def test_a_plot_without_matplotlib(
    engine: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refuse("bench", engine, "--plot", engine.parent / "a.png", code=3, names="plot")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "p99 ms"),
        (("--scenario", "MultiStream", "--streams", "3"), "those of groups of 3"),
        (("--scenario", "Offline"), "cached stages are those of blocks of 32"),
        (("--deadline-ms", "1e-3"), "answers partial"),
        (("--method", "none"), "none, w8, CPUExecutionProvider"),
    ],
)
def test_scenarios(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str) -> None:
    assert main(["bench", str(ENGINE), *SHORT, "--skip-cold", *options]) == 0
    out, err = capsys.readouterr()
    assert said in out
    assert err == ""


def test_server_without_enough_queries(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--skip-cold", "--scenario", "Server", "--qps", "20", "--latency-bound-ms", "1e6")
    assert main(["bench", str(ENGINE), *SHORT, *options]) == 2
    out, err = capsys.readouterr()
    assert "cached is undecided: p99 must be within 1e+06 ms" in out
    assert "of it waiting, p99" in out
    (last,) = err.splitlines()
    assert last.startswith("undecided: too few queries")
    assert "662 would tell; run it for longer (--duration" in last


def test_a_server_too_slow_for_its_bound(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked = BenchSettings(scenario="Server", qps=1.0)
    samples = [sample(1.001)] * 3
    section = section_of(samples, asked, "Server")
    found = report(replace(section, server=server_figures(samples, 3, asked)))
    monkeypatch.setattr(_bench, "run_bench", lambda *_, **__: found)
    file = tmp_path / "a.json"
    options = ("--scenario", "Server", "--qps", "1", "--quiet", "--json", str(file))
    assert main(["bench", str(engine), *options]) == 6
    out, err = capsys.readouterr()
    assert "cached is invalid" in out
    assert "--latency-bound-ms" in err
    assert load_report(file) == found  # there before the verdict


def test_everything_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file, plot = tmp_path / "a.json", tmp_path / "a.png"
    options = (
        "--json", str(file), "--plot", str(plot), "--cold-runs", "1", "--expect-dtype", "w8",
        "--align-cameras", "mean",
    )  # fmt: skip
    assert main(["bench", str(ENGINE), *SHORT, *options]) == 0
    out = capsys.readouterr().out
    assert "cold start (median of 1): import" in out
    assert "p50 ms by candidates, cached, one at a time: 1: " in out
    found = load_report(file)
    assert found.cached is not None
    assert found.uncached is not None
    assert found.cached.scored_per_query == found.uncached.scored_per_query == 4
    assert 0.3 < sum(one.share for one in found.cached.stages.values()) <= 1
    assert found.environment.providers["decoder"] == ["CPUExecutionProvider"]
    assert found.environment.threads == 1
    assert list(found.sweep) == ["1", "2", "4", "8"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    # A slow machine answers few queries in so short a time.
    enough = max(found.cached.latency.count, found.uncached.latency.count) >= 5
    assert main(["bench", "compare", str(file), str(file)]) == (0 if enough else 2)
    verdict = "no difference" if enough else "undecided"
    assert f"verdict: {verdict} " in capsys.readouterr().out


def test_json_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(ENGINE), *SHORT, "--skip-cold", "--json", "-"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert BenchReport.from_json(json.loads(out)).settings.candidates == 4


def test_given_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse) -> None:
    folder = tmp_path / "world"
    world = ["world", "-o", str(folder), "--domain", "far", "--people", "4", "--distractors", "0",
             "--quiet"]  # fmt: skip
    assert main(world) == 0
    images = ("--images", str(folder / "query"), "--json", "-")
    capsys.readouterr()
    assert main(["bench", str(ENGINE), *SHORT, "--skip-cold", *images]) == 0
    settings = BenchReport.from_json(json.loads(capsys.readouterr().out)).settings
    assert (settings.images, settings.gallery_pool) == ("given", 15)  # 16 images, one is asked
    few = ("--candidates", "16", "--images", str(folder / "query"))
    refuse("bench", ENGINE, *SHORT, *few, names="16 candidates")


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ((), "off"),  # 50 images of six cameras
        (("--gallery-size", "400", "--align-cameras", "off"), "off"),
        (("--gallery-size", "400"), "pairs"),
        (("--align-cameras", "mean"), "mean"),
    ],
)
def test_features_are_aligned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...],
    level: str,
) -> None:  # fmt: skip
    made: list[Searcher] = []

    class Noted(Searcher):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            made.append(self)

    monkeypatch.setattr(_subject, "Searcher", Noted)
    assert main(["bench", str(ENGINE), *SHORT, "--skip-cold", *options, "--json", "-"]) == 0
    found = BenchReport.from_json(json.loads(capsys.readouterr().out)).settings
    assert [found.alignment] == [one.alignment.level for one in made] == [level]


def test_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _subject.subject_of

    def until_the_tenth(*arguments: Any) -> Any:
        subject = made(*arguments)
        ask, calls = subject.ask, iter(range(10))

        def asked(*query: Any) -> Any:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return ask(*query)

        monkeypatch.setattr(subject, "ask", asked)
        return subject

    monkeypatch.setattr(_run, "subject_of", until_the_tenth)
    file = tmp_path / "a.json"
    options = ("--skip-cold", "--json", str(file), "--warmup", "0", "--duration", "60")
    assert main(["bench", str(ENGINE), *SHORT, *options]) == 130
    assert "interrupted: this is what was measured so far" in capsys.readouterr().out
    found = load_report(file)
    assert found.status == "interrupted"
    assert found.cached is not None
    assert found.cached.queries == 7  # 3 were the warm-up


@pytest.mark.parametrize(("count", "marked"), [(99, True), (100, False)])
def test_a_percentile_of_few_samples_is_marked(count: int, marked: bool) -> None:
    lines = list(report_lines(report(section_of([sample(0.05)] * count, BenchSettings()))))
    (p99,) = (line for line in lines if line.startswith("p99 ms"))
    assert p99.split()[-1] == ("50.00*" if marked else "50.00")
    assert any(line.startswith("* of fewer than 100 samples") for line in lines) == marked


def test_a_server_that_left_queries_unanswered() -> None:
    asked = BenchSettings(scenario="Server", qps=1.0)
    section = section_of([sample(0.05)], asked, "Server")
    fared = server_figures([sample(0.05)], 7, asked)
    out = "\n".join(report_lines(report(replace(section, server=fared))))
    assert "cached is invalid: " in out
    assert "6 of 7 queries were never answered" in out
    stopped = server_figures([sample(0.05)], 3, asked, interrupted=True)
    out = "\n".join(report_lines(report(replace(section, server=stopped), status="interrupted")))
    assert "cached is interrupted: p99 must be within" in out
    assert "2 of 3 queries still waited" in out


def test_an_interrupted_report_that_has_only_a_cold_start(
    engine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = ColdFigures(2, 200.0, 50.0, 10.0, 40.0, 20.0, 300.0)
    bare = report(None, cold=cold, status="interrupted", memory=None)
    monkeypatch.setattr(_bench, "run_bench", lambda *_, **__: bare)
    assert main(["bench", str(engine), "--quiet"]) == 130
    out = capsys.readouterr().out
    assert "first answer after 300 ms" in out
    assert "interrupted" in out


def test_help_of_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    assert "murank bench compare A.json B.json" in capsys.readouterr().out
    assert main(["bench", "compare", "--help"]) == 0
    assert "--threshold" in capsys.readouterr().out

"""benchmarks/gpu: the script itself, which most machines cannot run to its end."""

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu import check, children, report
from gpu.accelerators import Cpu, for_floor
from gpu.child import SECTIONS, rows_of, section
from gpu.context import Context, Rates, need, read_context, read_rates, write_rates
from gpu.rows import CannotRun, Row, exit_code, milliseconds, read_row, table, timed
from gpu.sections import runtimes
from gpu.sections.engine import Made

from murank import MachineError


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(device="cpu", quick=True, run=tmp_path, work=tmp_path / "work", config=None)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def gpus() -> dict[str, Any]:
        raise MachineError("no driver at all")

    monkeypatch.setattr("murank.doctor.gpus.gpus", gpus)


# Rows and figures


def test_a_row_comes_back_as_it_went() -> None:
    row = Row(what="a", state="right", figure="1 ms", floor="2 ms", ratio="0.50", note="x | y")
    assert read_row(row.to_json()) == row


@pytest.mark.parametrize(
    "line", ["", '{"what": "a", "sta', "[1]", '{"unknown": 1}', '{"what": "a", "state": "odd"}']
)
def test_what_is_no_row_is_none(line: str) -> None:
    assert read_row(line) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1.23e-5, "0.0123 ms"), (0.00123, "1.23 ms"), (0.1, "100 ms"), (1.2344, "1234 ms")],
)
def test_milliseconds(seconds: float, said: str) -> None:
    assert milliseconds(seconds) == said


def test_a_time_beside_its_floor() -> None:
    row = timed("a", 0.03, 0.01)
    assert (row.figure, row.floor, row.ratio) == ("30.0 ms", "10.0 ms", "3.00")
    assert (timed("a", 0.03).floor, timed("a", 0.03, 0.0).ratio) == ("", "")


def test_cells_cannot_break_the_table() -> None:
    lines = table([("s", Row(what="a|b", note="two\nlines"))]).splitlines()
    assert lines[2] == "| s | a/b |  |  |  | measured | two lines |"
    assert {line.count("|") for line in lines} == {8}


@pytest.mark.parametrize(
    ("states", "has_gpu", "code"),
    [
        (["measured", "right", "cannot run"], True, 0),
        (["right", "wrong"], True, 1),
        (["right", "failed"], True, 1),
        (["cannot run"], False, 3),
        (["failed", "cannot run"], False, 1),
    ],
)
def test_exit_code(states: list[Any], has_gpu: bool, code: int) -> None:
    assert exit_code([Row(what="a", state=s) for s in states], has_gpu=has_gpu) == code


def test_floor_of_reranking_is_half_a_product_and_its_distances() -> None:
    rates = Rates({"float32": 1e6}, copy=1e5)
    pairs = 100 * 101 // 2  # each computed once: 2 x 8 operations, written and read
    expected = pairs * 2 * 8 / 1e6 + pairs * 2 * 4 / 1e5
    assert rates.rerank_seconds(100, 8) == pytest.approx(expected, rel=0.011)
    assert Rates().rerank_seconds(100, 8) is None
    assert Rates({"float32": 1e6}).rerank_seconds(100, 8) is None
    assert rates.product_seconds(1.0, "float16") is None


def test_rates_and_context_travel(context: Context) -> None:
    assert read_rates(context) == Rates()
    write_rates(context, Rates({"float16": 2.0}, 3.0))
    assert read_rates(context) == Rates({"float16": 2.0}, 3.0)
    whole = replace(context, config=Path("a"))
    assert read_context(whole.to_json()) == whole
    assert read_context(context.to_json()) == context


def test_need_names_what_lacks() -> None:
    need("json")
    with pytest.raises(CannotRun, match=r"^no_such_module not installed$"):
        need("json", "no_such_module")


def test_the_middle_run_counts_and_warm_ones_do_not() -> None:
    calls = []
    assert len(Cpu().seconds(lambda: calls.append(1), 3)) == 3
    assert len(calls) == 5


# Sections in processes of their own


def run(code: str, tmp_path: Path, limit: float = 60.0) -> list[Row]:
    file = tmp_path / "a.jsonl"
    return children.run_command([sys.executable, "-c", code, str(file)], file, limit)


WRITE = "import sys, os, time; f = open(sys.argv[1], 'a'); f.write('%s\\n'); f.flush(); "
ONE = Row(what="one")


def test_a_section_that_ends_well(tmp_path: Path) -> None:
    assert run(WRITE % ONE.to_json(), tmp_path) == [ONE]


def test_a_crash_keeps_the_rows_before_it(tmp_path: Path) -> None:
    code = WRITE % ONE.to_json() + "f.write('{half'); f.flush(); os.kill(os.getpid(), 11)"
    rows = run(code, tmp_path)
    assert rows[0] == ONE
    assert [(row.state, row.note) for row in rows[1:]] == [
        ("failed", "its process was ended by SIGSEGV")
    ]


def test_an_exception_is_told_by_its_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = run("raise KeyError('mu')", tmp_path)
    assert (row.state, row.note) == ("failed", "KeyError: 'mu'")
    assert "Traceback" in capsys.readouterr().err


def test_a_hang_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        WRITE % ONE.to_json() + "import subprocess; p = subprocess.Popen(['sleep', '60']); "
        "open(sys.argv[1] + '.pid', 'w').write(str(p.pid)); time.sleep(60)"
    )
    start = time.monotonic()
    rows = run(code, tmp_path, limit=3.0)
    assert time.monotonic() - start < 30
    assert rows[0] == ONE
    assert rows[1].state == "failed"
    assert rows[1].note == "stopped: it took longer than its 3 s"
    status = Path("/proc") / (tmp_path / "a.jsonl.pid").read_text() / "status"
    deadline = time.monotonic() + 10
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < deadline, "the grandchild still runs"
        time.sleep(0.05)


def test_a_section_that_says_nothing_failed(tmp_path: Path) -> None:
    assert run("pass", tmp_path) == [
        Row(what="the section", state="failed", note="it found nothing")
    ]


def test_a_child_imports_this_tree_and_not_the_current_folder() -> None:
    found = children.environment({"PYTHONPATH": "given", "HOME": "x"})
    first, *_, last = found["PYTHONPATH"].split(":")
    assert (Path(first) / "gpu" / "check.py").is_file()
    assert (last, found["HOME"], found["PYTHONSAFEPATH"]) == ("given", "x", "1")
    assert not children.environment({})["PYTHONPATH"].endswith(":")


def test_what_was_found_stays_before_cannot_run(context: Context) -> None:
    def found(_: Context) -> Iterator[Row]:
        yield ONE
        raise CannotRun("no luck")

    rows = list(rows_of(found, context))
    assert rows[0] == ONE
    assert (rows[1].state, rows[1].note) == ("cannot run", "cannot run because: no luck")


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("name", SECTIONS)
def test_without_a_driver_every_section_says_so(name: str, context: Context) -> None:
    (row,) = rows_of(section(name), replace(context, device="cuda"))
    assert (row.state, row.note) == ("cannot run", "cannot run because: no driver at all")


def test_a_driver_without_a_gpu(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("murank.doctor.gpus.gpus", lambda: {"cuda": "13.0", "gpus": []})
    for name in SECTIONS:
        (row,) = rows_of(section(name), replace(context, device="cuda"))
        assert row.note == "cannot run because: NVIDIA's driver knows no GPU"


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"name": "NVIDIA T", "compute_capability": "9.0", "memory_bytes": 3 << 30}
    monkeypatch.setattr("murank.doctor.gpus.gpus", lambda: {"cuda": "13.0", "gpus": [gpu]})
    monkeypatch.setattr("murank.machine.hardware.gpu_and_driver", lambda: ("NVIDIA T", "580.1"))


@pytest.mark.usefixtures("one_gpu")
def test_the_device_is_named(context: Context) -> None:
    first, *versions = section("device")(replace(context, device="cuda"))
    assert first == Row(
        what="NVIDIA T", figure="3.0 GiB", note="compute capability 9.0, driver 580.1, CUDA 13.0"
    )
    assert {row.what: row.figure for row in versions}["numpy"] == np.__version__


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_without_packages(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cupy", "torch"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(CannotRun, match=r"torch.*; .*cupy"):
        for_floor(replace(context, device="cuda"))
    for name in ("correctness", "kernels"):
        (row,) = rows_of(section(name), replace(context, device="cuda"))
        assert row.state == "cannot run"
        assert "CuPy" in row.note or "numba-cuda" in row.note


def test_scoring_needs_the_engine(context: Context) -> None:
    with pytest.raises(CannotRun, match="the section engine did not make the checkpoint"):
        next(runtimes.onnxruntime_rows(context))
    with pytest.raises(CannotRun, match="TensorRT has no CPU"):
        next(runtimes.tensorrt_rows(context))


def test_engines_are_tried_where_they_can_run(context: Context) -> None:
    asked = replace(context, precisions=("int8", "bf16", "fp8"))
    assert runtimes.with_backend("cuda", asked) == ["bf16"]
    assert runtimes.with_backend("plans", asked) == ["bf16", "fp8"]
    with pytest.raises(CannotRun, match="none of fp8 is for this backend"):
        runtimes.with_backend("cuda", replace(context, precisions=("fp8",)))


def test_an_engine_that_is_not_there_or_not_for_this_gpu_says_so(tmp_path: Path) -> None:
    where = Made(tmp_path)
    lacking = runtimes.why_not(where, "fp8", (8, 7))
    assert lacking is not None
    assert lacking.note == "cannot run because: the section engine did not make it"
    where.engine("fp8").mkdir()
    old = runtimes.why_not(where, "fp8", (8, 7))
    assert old is not None
    assert (old.what, old.note) == (
        "the fp8 engine", "cannot run because: it needs compute capability 8.9"
    )  # fmt: skip
    assert runtimes.why_not(where, "fp8", (8, 9)) is None
    assert runtimes.why_not(where, "fp8") is None


def test_precisions_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.parse([]).precisions == ["fp16", "bf16"]
    (tmp_path / "config.json").write_text("{}")
    assert check.parse(["--config", str(tmp_path)]).precisions == ["fp16"]
    assert check.parse(["--precisions", "fp8", "int4"]).precisions == ["fp8", "int4"]
    with pytest.raises(SystemExit):
        check.parse(["--precisions", "fp64"])
    assert "fp64" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["onnxruntime", "tensorrt"])
@pytest.mark.usefixtures("one_gpu")
def test_a_runtime_that_lacks_something_says_what(
    what: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(*_: object) -> None:
        raise MachineError("install this")

    fake = SimpleNamespace(get_available_providers=lambda: ["CUDAExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(runtimes, "need", lambda *_: None)
    monkeypatch.setattr("murank.doctor.probes.product", lacks)
    monkeypatch.setattr("murank.backends.trt.this_machine", lacks)
    (row,) = rows_of(section(what), replace(context, device="cuda"))
    assert (row.state, row.note) == ("cannot run", "cannot run because: install this")


@pytest.mark.usefixtures("one_gpu")
def test_onnxruntime_for_cpus_is_told_apart(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(runtimes, "need", lambda *_: None)
    with pytest.raises(CannotRun, match="this onnxruntime is no GPU build"):
        next(runtimes.onnxruntime_rows(replace(context, device="cuda")))


# The script


def fake_sections(monkeypatch: pytest.MonkeyPatch, first: Row, other: Row = ONE) -> list[str]:
    ran: list[str] = []

    def run_section(name: str, _context: Context, limit: float) -> list[Row]:
        assert 0 < limit <= check.LIMITS[name]
        ran.append(name)
        return [first if name == "device" else other]

    monkeypatch.setattr(check, "run_section", run_section)
    return ran


def test_every_section_has_a_limit() -> None:
    assert check.LIMITS.keys() == SECTIONS.keys()
    assert check.BUDGET < 8 * 60


def test_the_table_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = fake_sections(monkeypatch, Row(what="NVIDIA H200"))
    file = tmp_path / "a.md"
    arguments = ["--out", str(file), "--skip", "engine", "tensorrt", "--quick"]
    assert check.main(arguments) == 0
    assert ran == [name for name in SECTIONS if name not in ("engine", "tensorrt")]
    text = file.read_text()
    assert text in capsys.readouterr().out
    assert text.startswith(
        "# NVIDIA H200\n\n`check.py --quick --skip engine tensorrt --precisions fp16 bf16`, "
    )
    assert "6 rows, 0 wrong or failed, 0 could not run" in text


def test_results_are_named_by_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "HERE", tmp_path)
    (tmp_path / "results").mkdir()
    fake_sections(monkeypatch, Row(what="NVIDIA H100 80GB HBM3"), Row(what="a", state="wrong"))
    assert check.main([]) == 1
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["nvidia-h100-80gb-hbm3.md"]
    assert report.file_name("Orin (nvgpu)") == "orin-nvgpu.md"


def test_without_a_gpu_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "HERE", tmp_path)
    (tmp_path / "results").mkdir()
    fake_sections(monkeypatch, Row(what="the section", state="cannot run"))
    assert check.main([]) == 3
    assert not list((tmp_path / "results").iterdir())


def test_a_trial_on_the_cpu_leaves_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "HERE", tmp_path)
    fake_sections(monkeypatch, Row(what="CPU"))
    assert check.main(["--device", "cpu"]) == 0
    assert not list(tmp_path.iterdir())


def test_when_the_time_is_up_sections_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = fake_sections(monkeypatch, Row(what="CPU"))
    assert check.main(["--device", "cpu", "--seconds", "1"]) == 3
    assert ran == []
    assert "cannot run because: the time is up" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "no/such"], "has no config.json"),
        (["--out", "no/such/a.md"], "does not exist"),
        (["--skip", "device"], "invalid choice: 'device'"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        check.main(arguments)
    assert said in capsys.readouterr().err


def test_signals_are_named() -> None:
    assert children._why(-signal.SIGKILL, Path("unused")) == "its process was ended by SIGKILL"
    assert children._why(-99, Path("unused")) == "its process was ended by 99"

"""The command as a process: streams that are closed or full, signals, a folder that is gone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

RUN = f'exec "{sys.executable}" -m murank'
ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
END = {signal.SIGINT: (130, "murank: interrupted\n"), signal.SIGTERM: (143, "murank: terminated\n")}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("streams") / "f.npz"
    rows = np.random.default_rng(0).normal(size=(8, 4))
    np.savez(
        file, features=rows, paths=np.array(["query"] * 2 + ["g"] * 6),
        pids=np.arange(8) % 2, camids=np.arange(8) // 2,
    )  # fmt: skip
    return file


def shell(line: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.fixture(autouse=True)
def default_ctrl_c() -> Iterator[None]:
    """What a terminal gives to processes; a job in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


RERANK = "rerank {f} --method none --json --quiet"
INSPECT = f'inspect "{ENGINE}" --json'  # quick: it loads no compiler


@pytest.mark.parametrize(
    ("streams", "verb"),
    [(">&-", INSPECT), (">/dev/full", INSPECT), ("1</dev/null", "--version")],
)
def test_output_is_not_lost_in_silence(verb: str, streams: str, features: Path) -> None:
    done = shell(f"{RUN} {verb.format(f=features)} {streams}")
    assert done.returncode == 2
    assert done.stderr.startswith("murank: error: ")
    assert "standard output" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("streams", [">&-", ">/dev/full", "1</dev/null"])
def test_nowhere_to_tell(streams: str) -> None:
    both = shell(f"{RUN} --version {streams} 2>&-")
    assert (both.returncode, both.stdout, both.stderr) == (2, "", "")


@pytest.mark.parametrize(
    ("streams", "verb"),
    [("2>&-", INSPECT), ("2>/dev/full", INSPECT), ("<&-", INSPECT), ("2>&- <&-", RERANK)],
)
def test_other_streams_do_not_matter(verb: str, streams: str, features: Path) -> None:
    done = shell(f"{RUN} {verb.format(f=features)} {streams}")
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout)


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full"])
def test_an_error_finds_a_stream_that_is_left(streams: str) -> None:
    done = shell(f"{RUN} evaluate missing.npz {streams}")
    assert done.returncode == 2
    assert done.stdout == "murank: error: missing.npz: no such file\n"


def test_no_file_becomes_a_standard_stream(features: Path, tmp_path: Path) -> None:
    """What libraries write to descriptor 2 would land in the file that took its number."""
    code = (
        "import os; from murank.machine import process; process.plug_streams(); "
        f"print(os.open({str(features)!r}, 0) > 2)"
    )
    assert shell(f'"{sys.executable}" -c "{code}" 2>&- <&-', tmp_path).stdout == "True\n"


def test_who_reads_no_progress_stops_nothing(features: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys; from murank.cli import progress, main; progress._EVERY_LOG = 0; "
        f"sys.exit(main(['rerank', {str(features)!r}, '--method', 'k-reciprocal', "
        f"'-o', {str(out)!r}]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        assert run.stderr is not None
        run.stderr.close()
        assert run.wait() == 0
    assert (out / "summary.json").is_file()


def test_names_that_the_encoding_lacks(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "murank", "inspect", str(tmp_path / "m\N{LATIN SMALL LETTER U}é")],
        capture_output=True, text=True, env=env, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", END)
def test_a_signal_during_imports(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(
        f"import os, time\ntry:\n    os.kill(os.getpid(), {int(number)})\n    time.sleep(20)\n"
        "except BaseException:\n    raise ImportError('as libraries do') from None\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "murank", "evaluate", "f.npz"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (*END[number], "")


@pytest.mark.parametrize("number", END)
@pytest.mark.parametrize("raised", ["", "except BaseException: raise ValueError"])
def test_a_signal_during_the_work(number: signal.Signals, raised: str) -> None:
    code = f"""
import os, sys
from murank import __main__
from murank.cli import evaluate as _evaluate
def run(_):
    try:
        os.kill(os.getpid(), {int(number)})
        print("the work went on")
    {raised or "finally: print('put in order')"}
_evaluate.run = run
sys.argv = ["murank", "evaluate", "f.npz"]
sys.exit(__main__.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = "" if raised else "put in order\n"
    assert (done.returncode, done.stderr, done.stdout) == (*END[number], said)


def test_a_signal_in_code_made_of_text(tmp_path: Path) -> None:
    """As in the making of a dataclass: Python itself would end by the signal, -2."""
    (tmp_path / "stopped.py").write_text("""
import os, sys
from murank import __main__
from murank.cli import evaluate as _evaluate
def run(_):
    exec("os.kill(os.getpid(), 2); print('the work went on')")
_evaluate.run = run
sys.argv = ["murank", "evaluate", "f.npz"]
sys.exit(__main__.main())
""")
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "stopped"], capture_output=True, text=True, check=False,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (*END[signal.SIGINT], "")


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    done = shell(
        f"trap '' INT; {RUN} evaluate missing.npz & kill -INT $!; wait $!; echo $?", tmp_path
    )
    assert done.stdout == "2\n"


def test_the_current_folder_is_gone(features: Path, tmp_path: Path) -> None:
    gone = f"mkdir gone && cd gone && rmdir ../gone && {RUN}"
    done = shell(f"{gone} {INSPECT}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(f"{gone} rerank {features} --method none -o out", tmp_path)
    assert done.returncode in (2, 3)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("MemoryError()", "not enough memory"),
        ("MemoryError('Unable to allocate 7 GiB')", "Unable to allocate 7 GiB"),
        ("OSError(24, 'Too many open files', 'weights.onnx')", "weights.onnx"),
        ('RuntimeError("can\'t start new thread")', "threads"),
    ],
)
def test_what_the_system_refuses(
    raised: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from murank.cli import main

    def run(_: object) -> int:
        raise eval(raised)  # noqa: S307 - the words above

    monkeypatch.setattr("murank.cli.evaluate.run", run)
    assert main(["evaluate", "f.npz"]) == 3
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_bug_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from murank.cli import main

    def run(_: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr("murank.cli.evaluate.run", run)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["evaluate", "f.npz"])

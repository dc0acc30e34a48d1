import json
import subprocess
import sys
import warnings

import pytest

from murank import __version__
from murank.cli import VERBS, main

HEAVY = ("numba", "scipy", "torch", "onnxruntime")


HELP = f"""
import json, sys
from murank.cli import VERBS, main
for arguments in [["--help"], *([verb, "--help"] for verb in VERBS)]:
    code = main(arguments)
    loaded = [name for name in {HEAVY} if name in sys.modules]
    print(json.dumps([arguments, code, loaded]), end="\\f")
"""


def test_help_loads_nothing_heavy() -> None:
    """In one process: whatever loads something is named by the first page that shows it."""
    run = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    pages = run.stdout.split("\f")[:-1]
    assert len(pages) == 1 + len(VERBS)
    for page in pages:
        shown, end = page.rsplit("\n", 1)
        arguments, code, loaded = json.loads(end)
        assert (code, loaded) == (0, []), arguments
        assert "usage: murank" in shown, arguments
        assert "exit codes:" in shown, arguments


def test_runs_as_a_module() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "murank", "evaluate", "missing.npz"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr == "murank: error: missing.npz: no such file\n"
    assert run.stdout == ""


def test_a_warning_is_one_line_without_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> int:
        warnings.warn("all graphs run on the CPU", RuntimeWarning, stacklevel=1)
        return 0

    monkeypatch.setattr("murank.cli.evaluate.run", run)
    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = warnings.showwarning
        assert main(["evaluate", "f.npz"]) == 0
        assert warnings.showwarning is before
    assert warnings.showwarning is shown
    assert capsys.readouterr().err == "murank: warning: all graphs run on the CPU\n"


def test_a_reader_who_left_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "murank", "--help"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait() == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"murank {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["--dance"], ["evaluate"]])
def test_bad_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("murank: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "evaluate", "f.npz"], ["--json", "murank evaluate"]),
        (["-o", "out", "rerank"], ["-o", "murank rerank"]),
        (["--quiet"], ["--quiet", "murank VERB"]),
    ],
)
def test_options_before_the_verb(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["rerank", "job", "--engine", "e"], "score"),
        (["rerank", "job", "--method", "ecn", "--providers=cpu"], "score"),
        (["score", "e", "--method", "ecn"], "rerank"),
        (["search", "e", "--protocol", "cuhk03"], "rerank"),
        (["evaluate", "job", "--deadline-ms", "5"], "bench"),
        (["build", "e", "--verify"], "inspect"),
    ],
)
def test_an_option_of_another_verb(
    arguments: list[str], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    named = [word.split("=")[0] for word in arguments if word.startswith("--")]
    assert f"{named[-1]} is of murank {first}" in capsys.readouterr().err


def test_an_option_of_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "f.npz", "--frobnicate"]) == 2
    said = capsys.readouterr().err
    assert "--frobnicate" in said
    assert "is of murank" not in said

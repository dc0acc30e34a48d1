"""Every verb on names that would forge a line, drive a terminal, or are no UTF-8."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_names import ESCAPED, FORGED, HOSTILE, assert_harmless, make_images, only_json
from trt_fakes import FakeGpu, FakeTensorRT
from wide_engine import ENGINE

from murank import cli, doctor
from murank.cli import VERBS, main
from murank.cli.parser import Parser

ROOT = Path(__file__).parents[2]
RUN = ("--providers", "cpu", "--threads", "1")


class Place:
    """A folder of a hostile name, with all that verbs read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / HOSTILE
        self.query, self.gallery = self.folder / "query", self.folder / "gallery"
        self.queries = make_images(self.query, people=2)
        found = make_images(self.gallery)
        (self.gallery / f"x{HOSTILE}.txt").touch()
        self.engine = Path(shutil.copytree(ENGINE, self.folder / "engine"))
        # Libraries that read graphs by their names take those in UTF-8 alone.
        readable = folder / HOSTILE.replace("\udcff", "")
        self.readable_engine = Path(shutil.copytree(ENGINE, readable / "engine"))
        self.pairs = self.folder / "pairs.json"
        entries = [
            {"query": str(found[0]), "candidate": str(one), "match": "Yes" if i < 2 else "No"}
            for i, one in enumerate(found)
        ]
        self.pairs.write_text(json.dumps(entries))
        self.features = self.folder / "f.npz"
        random, images = np.random.default_rng(0), [*self.queries, *found]
        np.savez(
            self.features, features=random.normal(size=(12, 8)).astype(np.float32),
            paths=np.array([str(path) for path in images]), num_query=4,
            pids=np.array([1, 1, 2, 2, 1, 1, 2, 2, -1, -1, 3, 3]), camids=np.arange(12) % 2,
        )  # fmt: skip

        self.mask = self.folder / "mask.npz"
        np.savez(self.mask, drop=np.eye(4, 8, dtype=bool))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    pytest.importorskip("onnxruntime")
    return Place(tmp_path_factory.mktemp("names"))


# What each verb is asked; all of it works, in plain text and as JSON.
OF_CHECKPOINTS = {"adapt", "export"}  # and torch: see tests/export/test_cli_names.py
ENDLESS = {"serve"}  # what it says is told to callers: see test_service.py
CASES: dict[str, Callable[[Place], list[object]]] = {
    "build": lambda at: [at.readable_engine, "--parts", "encoder"],
    "score": lambda at: [
        at.engine, "--query", at.query, "--gallery", at.gallery, "--no-mu",
        "-o", at.folder / "job", "--overwrite", *RUN,
    ],
    "rerank": lambda at: [
        at.folder / "job", "--method", "none", "-o", at.folder / "out",
        "--sheet", at.folder / "s.png", "--report", at.folder / "r.html", "--overwrite",
    ],
    "search": lambda at: [
        at.engine, "--gallery", at.gallery, "--query", at.queries[0], "--no-mu",
        "--method", "none", *RUN,
    ],
    "align": lambda at: [at.features, "-o", at.folder / "a.npz", "--overwrite"],
    "evaluate": lambda at: [at.features, "--drop", at.mask],
    "calibrate": lambda at: [at.engine, "--pairs", at.pairs, "--eer", "--dry-run", *RUN],
    "inspect": lambda at: [at.engine, "--verify", *RUN],
    "bench": lambda at: [
        at.engine, "--images", at.gallery, "--candidates", 2, "--gallery-size", 6,
        "--duration", 0.2, "--warmup", 0, "--skip-cold", *RUN,
    ],
    "plan": lambda at: [at.readable_engine, "--board", "h200"],
    "cache": lambda at: ["stat", at.folder],
    "doctor": lambda _: ["--compile-kernels"],
    "gallery": lambda at: [
        "add", at.engine, at.folder / "g.db", at.queries[0], "--camera", 0, "--time", 0,
        "--track", HOSTILE.replace("\udcff", ""), *RUN,
    ],
    "world": lambda at: [
        "-o", at.folder / "world", "--domain", "mall", "--people", 2, "--distractors", 0,
        "--overwrite",
    ],
}  # fmt: skip
# What each verb is refused; its only file or folder has a hostile name.
REFUSED: dict[str, Callable[[Path], list[object]]] = {
    "build": lambda no: [no],
    "score": lambda no: [no, "--query", no, "--gallery", no, "-o", no],
    "rerank": lambda no: [no, "--method", "none"],
    "search": lambda no: [no, "--gallery", no, "--query", no],
    "align": lambda no: [no],
    "evaluate": lambda no: [no],
    "calibrate": lambda no: [no, "--pairs", no],
    "inspect": lambda no: [no],
    "bench": lambda no: ["compare", no, no],
    "plan": lambda no: [no, "--board", "h200"],
    "cache": lambda no: ["stat", no / "cache", "--engine", no],
    "doctor": lambda no: ["--engine", no],
    "gallery": lambda no: ["stats", no],
    "serve": lambda no: [no, "--uds", no],
    "world": lambda no: ["-o", no, "--domain", "mall", "--sheet", no.parent / f"{HOSTILE}.jpg"],
}


def test_no_verb_is_forgotten() -> None:
    assert CASES.keys() == REFUSED.keys() - ENDLESS == VERBS.keys() - OF_CHECKPOINTS - ENDLESS


def parser_of(verb: str) -> Parser:
    found: Parser = cli._module(verb).parser()
    return found


@pytest.mark.parametrize("verb", CASES)
def test_what_is_said(
    verb: str, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    gpu: FakeGpu, trt: FakeTensorRT,
) -> None:  # fmt: skip
    del gpu, trt
    monkeypatch.setattr(doctor, "compile_kernels", lambda: [place.folder / "kernels"])
    monkeypatch.setattr("murank.cli.progress._EVERY_LOG", 0)
    words = [verb, *map(str, CASES[verb](place))]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert_harmless(out, err)
    if verb not in ("evaluate", "calibrate", "bench", "build", "cache", "gallery"):
        assert ESCAPED.removesuffix("\\udcff") in out
    if verb in ("score", "search"):
        assert f"note: {place.gallery.parent.parent}" in err
    if "--json" not in parser_of(verb)._option_string_actions:
        return
    as_json = ["--json", "-"] if verb == "bench" else ["--json"]
    assert main([*words, *as_json]) == 0
    out, err = capsys.readouterr()
    assert_harmless(err)
    found = only_json(out)
    assert all(isinstance(text, str) for text in found["notes"])
    passed_over = [text for text in found["notes"] if "passed over" in text]
    assert len(passed_over) == (verb in ("score", "search", "bench"))


@pytest.mark.parametrize("verb", REFUSED)
def test_what_is_refused(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / HOSTILE / "missing"
    missing.parent.mkdir()
    assert main([verb, *map(str, REFUSED[verb](missing))]) in (2, 3)
    out, err = capsys.readouterr()
    assert_harmless(out, err)
    assert (out, err.count("\n")) == ("", 1)
    assert ESCAPED in err


@pytest.mark.parametrize("verb", ["build", "plan"])
def test_libraries_take_names_in_utf8(
    verb: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--board", "h200"] if verb == "plan" else []
    assert main([verb, str(place.engine), *options]) == 2
    assert "UTF-8" in capsys.readouterr().err


PACKAGES = ("runtime/murank", "export/murank_export")
# The places that write: the command's own, and children whose lines their parents read.
WRITERS = {
    "__main__.py", "machine/process.py", "checks/text.py", "cli/output.py", "cli/streams.py",
    "cli/progress.py", "bench/cold_process.py", "doctor/__main__.py", "service/log_lines.py",
    "crew/ray_cluster.py",  # silences Ray's logger
    "crew/handed_log.py",  # logs what other processes did
    "cli/in_flags.py",  # rewords what is logged
}  # fmt: skip


def writes(file: Path) -> list[str]:
    """Return what a module prints with, or warns with, past the one place that makes it plain."""
    found = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += ["print"] * (node.func.id == "print")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            found += [name] * (
                name in ("sys.stdout", "sys.stderr", "warnings.warn", "logging.getLogger")
            )
    return found


def test_nothing_is_printed_past_the_one_place() -> None:
    past = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            name = file.relative_to(ROOT / package).as_posix()
            if name not in WRITERS and (found := writes(file)):
                past[name] = found
    assert past == {}
    assert writes(ROOT / PACKAGES[0] / "checks" / "text.py") == ["logging.getLogger"]


def test_a_traceback_drives_no_terminal() -> None:
    code = (
        "import sys; from murank import __main__; from murank.cli import evaluate as _evaluate\n"
        "def run(args): raise RuntimeError(str(args.source))\n"
        "_evaluate.run = run; sys.exit(__main__.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", HOSTILE], capture_output=True, check=False
    )
    assert done.returncode == 1
    said = done.stderr.decode()
    assert "Traceback" in said
    assert all(line.isprintable() for line in said.split("\n"))
    assert f"RuntimeError: a\\n{FORGED}" in said


# Whoever takes these reads images.
OF_IMAGES = {"--images", "--query", "--gallery", "--image-root", "--pairs"}
READING = {"--bits", "--decode-limits"}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in OF_CHECKPOINTS])
def test_how_images_are_read_is_an_option_of_all_that_read_them(verb: str) -> None:
    known = parser_of(verb)._option_string_actions
    reads = any(flag in known and known[flag].type in (None, Path) for flag in OF_IMAGES)
    assert known.keys() & READING == (READING if reads else set())

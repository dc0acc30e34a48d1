"""What the library refuses is said in the flags of the verb that was called."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusal import refusing

import murank
from murank import Gallery, InputError, cli
from murank.checks.text import warn
from murank.cli import VERBS
from murank.cli.in_flags import flags_of, in_flags, said_in_flags

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
FLAGS = {
    "top_k": "--top-k", "method": "--method", "overwrite": "--overwrite", "k1": "--k1",
    "num_query": "--num-query", "max_pairs": "--max-pairs", "providers": "--providers",
    "device": "--kernels", "plans": "--plans", "lambda_value": "--lambda",
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "in_a_verb"),
    [
        ("top_k must be at least 1", "--top-k must be at least 1"),
        ("lambda_value must be in [0, 1], got 2.0", "--lambda must be in [0, 1], got 2.0"),
        ("pass method='none', or export", "pass --method none, or export"),
        ("use device='cpu'", "use --kernels cpu"),
        (
            "f.npz exists; pass overwrite=True or another name",
            "f.npz exists; pass --overwrite or another name",
        ),
        ("leave providers= out", "leave --providers out"),
        ("name a folder (plans=)", "name a folder (--plans)"),
        ("apart; pass num_query=", "apart; pass --num-query"),
        ("pass providers='cuda', or bits= of", "pass --providers cuda, or bits= of"),
        ("pass overwrite=True", "pass --overwrite"),
        ("pass --drop-junk (drop_junk)", "pass --drop-junk"),
        ("pass --drop-junk (junk='drop')", "pass --drop-junk"),
        ("--drop none (drop='none') does without", "--drop none does without"),
        ("g.db is open elsewhere: read it (mode='r')", "g.db is open elsewhere: read it"),
        ("pass a smaller max_pairs, or", "pass a smaller --max-pairs, or"),
        # What is no argument, or none of this verb's.
        ("f.npz: num_query is 3, but there are 2 rows", None),
        ("f.npz has neither num_query nor paths", None),
        ("a/top_k/method=none/k1: no such file", None),
        ("/top_k must be/x.npz: no such file", None),
        ("'top_k=3' is no file", None),
        ("/a b/k1= x: no such file", None),
        ("'k1= 3' is no file", None),
        ("candidates[3] is no image", None),
        ("method 'simple' fuses mu-distances", None),
        ("order='given' is wanted", None),
        ("colour must be red", None),
        ("--method none does not use --k1 (see murank rerank --help)", None),
    ],
)
def test_arguments_become_flags(said: str, in_a_verb: str | None) -> None:
    assert in_flags(said, FLAGS) == (in_a_verb or said)
    assert in_flags(in_flags(said, FLAGS), FLAGS) == (in_a_verb or said)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_knows_its_flags(verb: str) -> None:
    pytest.importorskip("murank_export")
    import argparse

    parser = cli._module(verb).parser()
    flags = flags_of(parser, argparse.Namespace(verb="search"))
    assert {one for one in flags.values() if one.startswith("--")}
    assert verb != "gallery" or flags["exclude_tracks"] == "--exclude-track"


def test_verbs_say_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.savez(
        "f.npz", features=random.normal(size=(6, 4)).astype(np.float32), num_query=2,
        pids=np.array([0, 1] * 3), camids=np.arange(6),
    )  # fmt: skip
    refuse = refusing(tmp_path, capsys)
    refuse("rerank", "f.npz", "--method", "k-reciprocal", "--k1", 0, names="--k1 must")
    refuse("rerank", "f.npz", "--method", "k-reciprocal", "--lambda", 2, names="--lambda must")
    refuse("align", "f.npz", "-o", "f.npz", names="--overwrite")
    with _made("g.db"):
        said = refuse("gallery", "purge", "g.db", names="g.db")
        assert "mode" not in said


def _made(file: str) -> Gallery:
    """A gallery, open for writing."""
    from gallery_engines import feature_engine

    return Gallery.open(file, feature_engine())


@pytest.mark.parametrize(
    "words",
    [
        ["rerank", "jobb", "-o", "job", "--method", "none"], ["evaluate", "jobb"],
        ["align", "jobb"], ["inspect", "jobb"], ["serve", "jobb"], ["build", "jobb"],
        ["gallery", "search", "jobb", "g.db", "--id", "x"], ["doctor", "--engine", "jobb"],
        ["score", "jobb", "--query", "a", "--gallery", "b", "-o", "job"],
        ["bench", "jobb"], ["calibrate", "jobb", "--pairs", "x"],
        ["search", ENGINE, "--gallery", "jobb", "--query", "x.jpg"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_folder_whose_name_is_mistyped_is_said_not_to_be_there(
    words: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()
    (tmp_path / "x.jpg").touch()
    said = refusing(tmp_path, capsys)(*words, names="jobb")
    assert "no such" in said
    assert "folder" in said


# What Python calls, too; of the backends all, of `rerank` all but a proposal, which a verb makes.
ROOMS = (
    "backends", "datasets", "engine", "files", "folder", "gallery", "images", "pairs", "prompt",
    "rerank", "search", "worker",
)  # fmt: skip
SAID_BY_VERBS = "rerank/proposal.py"
OF_A_COMMAND = re.compile(r"murank \w+ [^;:]*--[a-z]|--[a-z][\w-]*(?: \w+)? \(\w+(?:=[^)]*)?\)")


@pytest.mark.parametrize("room", ROOMS)
def test_what_python_calls_names_no_flags(room: str) -> None:
    """A flag stands there with its command, or beside the argument: see `in_flags`."""
    home = Path(murank.__file__).parent
    files = sorted((home / room).rglob("*.py"))
    assert files
    for file in files:
        if file.relative_to(home).as_posix() != SAID_BY_VERBS:
            told = [text for text in _texts(file) if re.search(r"(?<![\w-])--[a-z]", text)]
            assert [text for text in told if not OF_A_COMMAND.search(text)] == [], file


def _texts(file: Path) -> Iterator[str]:
    """Yield the strings of a file but docstrings and attributes' descriptions."""
    tree = ast.parse(file.read_text())
    aside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
        for part in node.values
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in aside | inner:
            yield ast.unparse(node)


@pytest.mark.parametrize("verb", ["score", "search", "calibrate", "gallery"])
def test_why_an_image_is_left_out_is_said_in_flags(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of values of 12 bits that are said to have 10; it is printed, and raised by nobody."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder in ("query", "gallery"):
        (tmp_path / folder).mkdir()
    for name in ("query/q.png", "gallery/a.png", "gallery/b.png", "gallery/deep.png"):
        most = 4096 if "deep" in name else 1024
        grey = random.integers(0, most, (64, 32)).astype(np.uint16)
        grey[0, 0] = most - 1
        Image.fromarray(grey).save(name)
    pairs = [("a", "Yes"), ("b", "No"), ("deep", "No")]
    Path("pairs.json").write_text(json.dumps([
        {"query": "query/q.png", "candidate": f"gallery/{name}.png", "match": match}
        for name, match in pairs
    ]))  # fmt: skip
    words = {
        "score": ("score", ENGINE, "--query", "query", "--gallery", "gallery", "-o", "job"),
        "search": ("search", ENGINE, "--query", "query/q.png", "--gallery", "gallery"),
        "calibrate": ("calibrate", ENGINE, "--pairs", "pairs.json", "--eer", "--dry-run"),
        "gallery": (
            "gallery", "add", ENGINE, "g.db", "gallery/a.png", "gallery/deep.png",
            "--camera", "1", "--time", "2026-01-01T00:00:00Z",
        ),
    }[verb]  # fmt: skip
    running = ("--bits", "10", "--providers", "cpu", "--threads", "1")
    assert cli.main([*map(str, words), *running]) == 0
    said = "".join(capsys.readouterr())
    assert "deep.png holds the value 4095, more than 10 bits can" in said
    assert "say how many there are (--bits)" in said
    assert "bits=" not in said


def test_what_is_logged_is_said_in_flags_too(caplog: pytest.LogCaptureFixture) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--num-query")
    flags = said_in_flags(parser, parser.parse_args([]))

    def refuse() -> None:
        with flags:
            warn("pass num_query=")
            raise InputError("pass num_query=, or providers='cuda'")

    with pytest.raises(InputError, match="pass --num-query, or --providers cuda"):
        refuse()
    warn("pass num_query=")
    assert caplog.messages == ["pass --num-query", "pass num_query="]

"""The build machine's verbs on names that would forge a line, drive a terminal, or are no UTF-8."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_names import ESCAPED, HOSTILE, assert_harmless, make_images, only_json
from plain_encoder import model, save

from murank import cli
from murank.cli import main
from murank_export.adapt.adapt_cli import VERBS as ADAPT
from murank_export.adapt.training import Trained
from murank_export.adapt.validation import Evaluation

Capture = pytest.CaptureFixture[str]
READABLE = HOSTILE.replace("\udcff", "")  # libraries that read models take names in UTF-8 alone


def encoder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return save(model(), folder)


def check(words: list[object], capsys: Capture, *, code: int = 0) -> tuple[str, str]:
    found = main(list(map(str, words)))
    out, err = capsys.readouterr()
    assert found == code, err
    assert_harmless(out, err)
    return out, err


def test_export(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / READABLE
    words = ["export", "--encoder", encoder(folder), "-o", folder / "engine", "--overwrite"]
    out, _ = check(words, capsys)
    assert ESCAPED.removesuffix("\\udcff") in out
    out, _ = check([*words, "--json"], capsys)
    assert only_json(out)["notes"] == []


def test_mine(tmp_path: Path, capsys: Capture) -> None:
    """Images of names in UTF-8, since pairs are JSON; all else is called as it pleases."""
    folder = tmp_path / HOSTILE
    images = make_images(tmp_path / READABLE, people=5, name=READABLE)
    (tmp_path / READABLE / f"x{HOSTILE}.txt").touch()
    junk = tmp_path / READABLE / images[0].name.replace("0001_c1", "-1_c1")
    junk.write_bytes(images[0].read_bytes())
    features = folder / "f.npz"
    folder.mkdir()
    np.savez(
        features, features=np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32),
        paths=np.array([str(path) for path in images]), pids=np.arange(10) // 2 - 1,
    )  # fmt: skip
    words = ["adapt", "mine", "-o", folder / "out", "--val-ratio", 0.5, "--overwrite"]
    sheet = folder / "s.png"
    out, err = check([*words, "--features", features, "--sheet", sheet], capsys)
    assert ESCAPED in out
    assert "junk" in err
    engine = tmp_path / READABLE / "engine"
    check(["export", "--encoder", encoder(tmp_path / "e"), "-o", engine, "--quiet"], capsys)
    words += ["--engine", engine, "--images", tmp_path / READABLE, "--json"]
    out, err = check(words, capsys)
    found = only_json(out)
    assert [word in " ".join(found["notes"]) for word in ("junk", "passed over")] == [True, True]
    assert found["images"] == 10


def test_train(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / HOSTILE
    figures = Evaluation(step=1, loss=0.5, accuracy=0.5, auc=0.5)

    def train(_settings: object, report: Callable[[str], None], _progress: object) -> Trained:
        report(f"note: {folder} is strange")
        return Trained(folder / "adapter", 1, 0.5, figures, figures, figures)

    monkeypatch.setattr("murank_export.adapt.train.train_adapter", train)
    words = ["adapt", "train", "--mllm", folder, "--pairs", folder, "-o", folder]
    out, err = check(words, capsys)
    assert ESCAPED in out
    assert ESCAPED in err
    out, _ = check([*words, "--json"], capsys)
    assert only_json(out)["notes"] == [f"{folder} is strange"]


REFUSED: dict[str, Callable[[Path], list[object]]] = {
    "export": lambda no: ["export", "--encoder", no, "-o", no / "engine"],
    "mine": lambda no: ["adapt", "mine", "--features", no, "-o", no / "out"],
    "train": lambda no: ["adapt", "train", "--mllm", no, "--pairs", no, "-o", no / "out"],
}


def test_no_verb_is_forgotten() -> None:
    assert cli.ELSEWHERE.keys() - {"plan", "world"} == {"adapt", "export"}
    assert REFUSED.keys() == {"export", *ADAPT}


@pytest.mark.parametrize("name", [HOSTILE, READABLE])
@pytest.mark.parametrize("verb", REFUSED)
def test_what_is_refused(verb: str, name: str, tmp_path: Path, capsys: Capture) -> None:
    out, err = check(REFUSED[verb](tmp_path / name), capsys, code=2)
    assert (out, err.count("\n")) == ("", 1)
    assert ESCAPED.removesuffix("\\udcff") in err


def flags_of(verb: str) -> dict[str, Any]:
    parser: Any = cli._module("adapt").parser()
    found: dict[str, Any] = (
        parser._subparsers._group_actions[0].choices[verb]._option_string_actions
    )
    return found


@pytest.mark.parametrize("verb", ADAPT)
def test_how_images_are_read_is_an_option(verb: str) -> None:
    assert flags_of(verb).keys() >= {"--bits", "--decode-limits", "--image-root"}

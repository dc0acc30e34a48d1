"""What `murank adapt mine` refuses, before anything is written."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mine_parts import MINE, SPLIT, Run
from mine_parts import features as features
from mine_parts import run as run
from refusal import Refuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--features"),
        (("--features", "F", "--engine", "E", "--images", "I"), "--features"),
        (("--features", "F", "--images", "I"), "--features"),
        (("--engine", "E"), "--engine"),
        (("--images", "I"), "--engine"),
        (("--features", "F", "--image-root", "x"), "--image-root"),
        (
            ("--engine", "E", "--images", "I", "--sheet", "s.png", "--image-root", "x"),
            "--image-root",
        ),
        (("--features", "F", "--sheet", "s.jpg"), "s.jpg"),
        (("--features", "F", "--k", "0"), "--k"),
        (("--features", "F", "--k", "x"), "--k"),
        (("--features", "F", "--val-ratio", "1"), "--val-ratio"),
        (("--features", "F", "--val-ratio", "-0.5"), "--val-ratio"),
        (("--features", "F", "--val-ratio", "nan"), "--val-ratio"),
        (("--features", "F", "--val-ratio", "0.01"), "val_ratio"),
        (("--features", "F", "--val-ratio", "0.1"), "one person"),
        (("--features", "F", "--seed", "-1"), "--seed"),
        (("--features", "F", "--sheet", "s.png"), "--image-root"),
        (("--features", "nowhere.npz"), "nowhere.npz"),
        (("--engine", "nowhere", "--images", "I"), "nowhere"),
    ],
)
def test_command_lines_that_cannot_be_followed(
    refuse: Refuse, features: Path, tmp_path: Path, arguments: Any, message: str
) -> None:
    words = [features if word == "F" else word for word in arguments]
    refuse(*MINE, tmp_path / "out" / "pairs", *words, names=message)


@pytest.mark.parametrize("verb", [(), ("dig",)])
def test_a_verb_is_needed(verb: tuple[str, ...], refuse: Refuse) -> None:
    refuse("adapt", *verb, names="VERB")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from murank.cli import main; import murank_export.adapt\n"
        "for words in (['--help'], ['mine', '--help'], ['train', '--help']):\n"
        "    assert main(['adapt', *words]) == 0\n"
        "print({'torch', 'transformers', 'peft', 'numba', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    assert "murank adapt mine" in done.stdout
    assert "the paper names none" in " ".join(done.stdout.split())


def change(file: Path, **arrays: Any) -> None:
    with np.load(file) as archive:
        held = {**archive, **arrays}
    np.savez(file, **{name: value for name, value in held.items() if value is not None})


def spoil(rows: Any, value: float) -> Any:
    rows = rows.copy()
    rows[1, 2:] = value
    if value == 0:
        rows[1] = 0
    return rows


BROKEN: list[tuple[Callable[[Any], dict[str, Any]], str]] = [
    (lambda _: {"pids": None}, "has no pids, so nobody knows"),
    (lambda a: {"features": spoil(a["features"], np.nan)}, r"features of query/\S+ hold NaN"),
    (
        lambda a: {"features": spoil(a["features"], np.inf)},
        r"features of query/\S+ hold NaN or inf",
    ),
    (lambda a: {"features": spoil(a["features"], 0)}, r"features of query/\S+ .* are all zero"),
    (lambda a: {k: a[k][:0] for k in ("features", "paths", "pids", "camids")}, "fewer than two"),
    (lambda a: {k: a[k][:1] for k in ("features", "paths", "pids", "camids")}, "fewer than two"),
    (lambda a: {"pids": a["pids"][:-1]}, "pids must have shape"),
    (lambda a: {"pids": a["pids"] * 0 + 5}, "the set is of one person, so it has no negative"),
    (lambda a: {"pids": np.arange(len(a["pids"])) + 1}, "nobody of the set has two images"),
    (
        lambda a: {"paths": np.resize(a["paths"][:3], len(a["paths"]))},
        "stands there twice .*0 and 3",
    ),
    (lambda a: {"paths": np.array(["", *a["paths"][1:]])}, "image 0 has no path"),
    (
        lambda a: {"paths": np.array(["\udcff", *a["paths"][1:]])},
        r"'\\udcff': the name is not UTF-8",
    ),
    (lambda a: {"pids": a["pids"] * 0 - 1}, r"features must have shape \[N, D\], got \[0, 24\]"),
]


@pytest.mark.parametrize(("damage", "message"), BROKEN)
def test_features_that_cannot_be_mined(
    refuse: Refuse, features: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    with np.load(features) as archive:
        arrays = dict(archive)
    change(features, **damage(arrays))
    output = tmp_path / "out" / "pairs"
    said = refuse(*MINE, output, "--features", features, *SPLIT, names="")
    assert re.search(message, said)


def test_cameras_that_are_unknown(run: Run, refuse: Refuse, features: Path, tmp_path: Path) -> None:
    change(features, camids=None)
    words = ("--features", features, *SPLIT)
    refuse(*MINE, tmp_path / "out" / "pairs", *words, "--cross-camera", names="--cross-camera")
    assert run(*words)[0] == 0


def test_no_archive(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(b"PK\x03\x04 no more")
    refuse(*MINE, tmp_path / "out", "--features", tmp_path / "f.npz", names="f.npz")


def test_output_that_is_a_file(refuse: Refuse, features: Path, tmp_path: Path) -> None:
    output = tmp_path / "pairs"
    output.write_text("mine")
    refuse(*MINE, output, "--features", features, *SPLIT, "--overwrite", names=output)


def test_a_sheet_that_cannot_be_written(refuse: Refuse, features: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "a.png"
    sheet.mkdir()
    options = ("--features", features, *SPLIT, "--image-root", tmp_path, "--sheet", sheet)
    refuse(*MINE, tmp_path / "out" / "pairs", *options, names=sheet)


def test_a_folder_that_cannot_be_made(refuse: Refuse, features: Path) -> None:
    output = features / "pairs"
    refuse(*MINE, output, "--features", features, *SPLIT, names=features)

"""The programs of examples/ run as they are, on a small drawn place."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from murank.cli import main as murank
from murank_kernels import AlignmentWarning

EXAMPLES = Path(__file__).parents[1] / "examples"
PLACE = (
    "--domain", "crowd", "--people", "8", "--distractors", "4", "--cameras", "3", "--seen-by", "3",
)  # fmt: skip


def example(name: str) -> Callable[..., Any]:
    """The main of a program."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[..., Any] = module.main
    return main


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "people"
    assert murank(["world", "-o", str(folder), *PLACE, "--quiet"]) == 0
    return folder


def test_all_are_named_in_their_readme() -> None:
    named = re.findall(r"^\| `(\w+)\.py`", (EXAMPLES / "README.md").read_text(), re.M)
    assert sorted(named) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


def test_rank_candidates(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("rank_candidates")(people)
    found = [float(mu) for mu in re.findall(r"mu ([0-9.]+)", capsys.readouterr().out)]
    assert len(found) == 5
    assert found == sorted(found)


def test_search_in_time(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("search_in_time")(people)
    out = capsys.readouterr().out
    assert len(re.findall(r"^\S+\.jpg: (\S+\.jpg, ){2}\S+\.jpg \(", out, re.M)) == 5


def test_your_features_are_what_arrays_are_re_ranked_from(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "features.npz"
    example("your_features")(people, file)
    assert murank(["rerank", str(file), "--method", "ecn", "--quiet"]) == 0
    capsys.readouterr()
    with pytest.warns(AlignmentWarning, match="means"):  # so few people
        example("rerank_arrays")(file)
    assert len(re.findall(r"mAP +[0-9.]+  rank-1", capsys.readouterr().out)) == 4


def test_keep_and_erase(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("keep_and_erase")(people, tmp_path / "kept")
    kept, without, cleared = map(int, re.findall(r": (\d+)", capsys.readouterr().out))
    assert kept - without == 1
    assert cleared == kept - 5


def test_appliance(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("appliance")(people, tmp_path / "appliance.db")
    out = capsys.readouterr().out
    assert len(re.findall(r"^\d\. c\d-\d{4}, mu 0\.", out, re.M)) == 3
    rows, complete, clean = re.findall(r"erased (\d+) rows, complete: (\w+)\nclean: (\w+)", out)[0]
    assert (int(rows) > 0, complete, clean) == (True, "True", "True")

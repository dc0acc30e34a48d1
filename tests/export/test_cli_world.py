import json
import stat
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from PIL import Image
from refusal import Refuse

from murank.cli import main
from murank.cli import progress as _progress
from murank.datasets import load_dataset
from murank_export.world import domain_names
from murank_export.world import world_cli as _world
from murank_export.world.market import WorldSettings, draw_sheet

SMALL = ("--domain", "mall", "--people", "2", "--distractors", "1", "--cameras", "2", "--seen-by",
         "2")  # fmt: skip
SETTINGS = WorldSettings("mall", people=2, distractors=1, cameras=2, seen_by=2)


def world(folder: Path, *options: object) -> int:
    return main(["world", "-o", str(folder), *SMALL, *map(str, options)])


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert world(tmp_path / "w", "--train-people", 1, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "folder": str(tmp_path / "w"),
        "images": {"query": 4, "bounding_box_test": 5, "bounding_box_train": 4},
        "notes": [],
    }


def test_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert world(tmp_path / "w") == 0
    assert capsys.readouterr() == (f"{tmp_path / 'w'}: 4 in query/, 5 in bounding_box_test/\n", "")
    assert len(load_dataset("market1501", tmp_path / "w").gallery.paths) == 5


def test_every_setting_has_an_option(tmp_path: Path) -> None:
    given = {
        "people": 3, "train_people": 2, "distractors": 4, "cameras": 5, "seen_by": 3, "shots": 4,
        "look_alikes": 0.25, "details": 1, "seed": 6, "place": 7,
    }  # fmt: skip
    assert {"domain", *given} == {field.name for field in fields(WorldSettings)}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    assert main(["world", "-o", str(tmp_path), "--domain", "broad-3", *options, "--json"]) == 0
    record = json.loads((tmp_path / "world.json").read_text())
    assert record["settings"] == {"domain": "broad-3", **given}


def test_defaults_are_those_of_the_settings() -> None:
    parsed = _world.parser().parse_args(["-o", "w", "--domain", "mall"])
    assert {field.name: getattr(parsed, field.name) for field in fields(WorldSettings)} == asdict(
        WorldSettings("mall")
    )


def test_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    assert world(tmp_path / "w", "--sheet", sheet, "--json") == 0
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        assert image.convert("RGB") == draw_sheet(SETTINGS)
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    assert [path.name for path in sheet.parent.iterdir()] == ["sheet.png"]
    assert json.loads(capsys.readouterr().out)["images"]["query"] == 4


def test_progress(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "_EVERY_LOG", 0.0)
    assert world(tmp_path / "a") == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("draw: 9/9 images")
    assert world(tmp_path / "b", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in domain_names())
    for word in ("--domain", "--look-alikes", "--place", "--sheet", "exit codes"):
        assert word in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--domain", "moon"), "no domain is called 'moon'; there are mall, broad-N, dusk"),
        (("--people", "0"), "--people"),
        (("--people", "many"), "--people"),
        (("--train-people", "-1"), "train-people at least 0"),
        (("--distractors", "-1"), "distractors and the place must be at least 0"),
        (("--seen-by", "3"), "got 3 of 2 cameras"),
        (("--shots", "1"), "two shots each or more"),
        (("--look-alikes", "2"), "look-alikes in 0..1"),
        (("--look-alikes", "nan"), "look-alikes in 0..1"),
        (("--details", "0"), "--details"),
        (("--seed", "-1"), "the seed 0..999999"),
        (("--place", "-1"), "distractors and the place must be at least 0"),
        (("--sheet", "sheet.jpg"), "--sheet"),
        (("--sheets", "sheet.png"), "--sheets"),
    ],
)
def test_bad_options(tmp_path: Path, refuse: Refuse, options: tuple[str, str], says: str) -> None:
    refuse("world", "-o", tmp_path / "w", *SMALL, *options, names=says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("left_out", "says"), [("-o", "-o"), ("--domain", "--domain")])
def test_what_is_needed(refuse: Refuse, left_out: str, says: str) -> None:
    given = {"-o": "w", "--domain": "mall"}
    del given[left_out]
    refuse("world", *(word for pair in given.items() for word in pair), names=says)


def test_what_is_there_already(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    assert world(tmp_path / "w") == 0
    capsys.readouterr()
    refuse("world", "-o", tmp_path / "w", *SMALL, names=tmp_path / "w")
    assert world(tmp_path / "w", "--people", 1, "--overwrite", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"]["query"] == 2
    (tmp_path / "w" / "mine.txt").touch()
    refuse("world", "-o", tmp_path / "w", *SMALL, "--overwrite", names=tmp_path / "w")


def test_a_sheet_that_cannot_be_written_is_refused_before_any_drawing(
    tmp_path: Path, refuse: Refuse
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_text("mine")
    for path, says in (
        (sheet, "exists; pass --overwrite"),
        (sheet / "below.png", "is not a writable folder"),
    ):
        refuse("world", "-o", tmp_path / "w", *SMALL, "--sheet", path, names=says)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert sheet.read_text() == "mine"
    assert world(tmp_path / "w", "--sheet", sheet, "--overwrite") == 0
    with Image.open(sheet) as image:
        assert image.size == (2 * 66, 2 * 130)

"""`murank cache`: what a folder holds of images, and how it is erased."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folder import edit_manifest, make_engine
from refusal import Refuse

from murank.cli import main
from murank.engine.disk_cache import CacheLimits, open_cache
from murank.folder.contents import EngineFiles
from murank.folder.manifest import engine_sha256, manifest_bytes, read_manifest

KEYS = [digit * 64 for digit in "123"]
BYTES = 24 + 32


def fill(root: Path, engine: Path, *keys: str) -> Path:
    """Keep tokens of some images as this engine does; return where."""
    before = set(root.glob("*"))
    cache = open_cache(root, EngineFiles(engine, read_manifest(engine)), CacheLimits())
    assert cache is not None
    for key in keys:
        cache.put(key, np.zeros(6, np.float32))
    (folder,) = set(root.glob("*")) - before
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """An engine of another precision."""
    make_engine(tmp_path / "other")
    edit_manifest(tmp_path / "other", lambda data: data.update(precision="fp32"))
    return tmp_path / "other"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cache(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["cache", *map(str, arguments), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def age(path: Path, days: float) -> float:
    then = time.time() - days * 86400
    os.utime(path, (then, then))
    return then


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def test_what_is_there(
    root: Path, engine: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = fill(root, engine, *KEYS[:2]), fill(root, other, KEYS[2])
    os.utime(first / KEYS[0], (1_700_000_000, 1_700_000_000))
    os.utime(first / KEYS[1], (1_800_000_000, 1_800_000_000))
    (first / f".murank-0123456789abcdef-{KEYS[0]}").write_bytes(b"half")
    os.utime(first / f".murank-0123456789abcdef-{KEYS[0]}", (1_750_000_000, 1_750_000_000))
    (first / "notes.txt").write_text("mine")
    found = cache(capsys, "stat", root)
    parts = {part.pop("name"): part for part in found.pop("parts")}
    assert found == {
        "schema_version": 1, "folder": str(root), "engine": None, "deleted": False,
        "files": 4, "bytes": 3 * BYTES + 4, "notes": [],
    }  # fmt: skip
    assert parts.keys() == {first.name, second.name}
    assert parts[first.name] == {
        "files": 3, "bytes": 2 * BYTES + 4, "aside": 1,
        "oldest": "2023-11-14T22:13:20+00:00", "newest": "2027-01-15T08:00:00+00:00",
    }  # fmt: skip
    found = cache(capsys, "stat", root, "--engine", other)
    assert [(part["name"], part["files"]) for part in found["parts"]] == [(second.name, 1)]
    assert (first / "notes.txt").exists()


def test_for_a_person(root: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(root, engine, *KEYS)
    assert main(["cache", "stat", str(root)]) == 0
    out = capsys.readouterr().out
    assert f"{folder.name}  3 files" in out
    assert "in all: 3 files" in out
    assert main(["cache", "clear", str(root)]) == 0
    assert "deleted: 3 files" in capsys.readouterr().out
    assert main(["cache", "stat", str(root)]) == 0
    assert capsys.readouterr().out == "in all: 0 files, 0.0 MiB\n"


def test_all_of_ours_is_erased_and_nothing_of_others(
    root: Path, engine: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of engines that are gone, and of a former name."""
    first, second = fill(root, engine, *KEYS), fill(root, other, KEYS[0])
    (first / "notes.txt").write_text("mine")
    (second / f".murank-0123456789abcdef-{KEYS[0]}").write_bytes(b"half")
    former = root / "vision-0123456789abcdef"
    former.mkdir()
    (former / KEYS[0]).write_bytes(b"former")
    (former / ".0123456789abcdef").write_bytes(b"former")
    (root / "vision-of-mine").mkdir()
    (root / "vision-of-mine" / KEYS[0]).write_text("mine")
    found = cache(capsys, "clear", root)
    assert (found["deleted"], found["files"]) == (True, 7)
    assert names(root) == sorted(
        [first.name, f"{first.name}/notes.txt", "vision-of-mine", f"vision-of-mine/{KEYS[0]}"]
    )


def test_one_engine(
    root: Path, engine: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files of before the hash of the vision part named the folder go, too."""
    fill(root, engine, *KEYS)
    second = fill(root, other, KEYS[0])
    former = root / f"vision-{engine_sha256(engine)[:16]}"
    former.mkdir()
    (former / KEYS[0]).write_bytes(b"former")
    assert cache(capsys, "clear", root, "--engine", engine)["files"] == 4
    assert names(root) == [second.name, f"{second.name}/{KEYS[0]}"]


def test_older_than(root: Path, engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(root, engine, *KEYS)
    age(folder / KEYS[0], 2.1)
    age(folder / KEYS[1], 1.9)
    assert cache(capsys, "clear", root, "--older-than", 2)["files"] == 1
    assert sorted(one.name for one in folder.iterdir()) == KEYS[1:]


def test_an_image_at_the_future_of_a_clock_is_erased_all_the_same(
    root: Path, engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    age(fill(root, engine, KEYS[0]) / KEYS[0], -400)
    assert cache(capsys, "clear", root)["files"] == 1
    assert names(root) == []


@pytest.mark.parametrize("action", ["stat", "clear"])
def test_a_link_is_not_followed(
    root: Path, engine: Path, tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(root, engine, KEYS[0])
    folder.rename(tmp_path / "foreign")
    (tmp_path / "foreign").chmod(0o755)
    folder.symlink_to(tmp_path / "foreign")
    (tmp_path / "link").symlink_to(root)
    for place in (root, tmp_path / "link"):
        assert main(["cache", action, str(place)]) == 2
        assert "is a symlink" in capsys.readouterr().err
    assert names(tmp_path / "foreign") == [KEYS[0]]
    assert (tmp_path / "foreign").stat().st_mode & 0o777 == 0o755


def test_bad_input(root: Path, engine: Path, tmp_path: Path, refuse: Refuse) -> None:
    fill(root, engine, KEYS[0])
    alone = tmp_path / "alone"
    make_engine(alone)
    manifest = replace(read_manifest(alone), scorer=None)
    (alone / "manifest.json").write_bytes(manifest_bytes(manifest))
    (tmp_path / "file").write_text("mine")
    bad: list[tuple[list[object], str]] = [
        (["stat", tmp_path / "nowhere"], "nowhere"),
        (["clear", tmp_path / "file"], "file"),
        (["stat", root, "--older-than", "2"], "--older-than"),
        (["clear", root, "--older-than", "0"], "--older-than"),
        (["clear", root, "--older-than", "nan"], "--older-than"),
        (["clear", root, "--engine", tmp_path / "nowhere"], "nowhere"),
        (["clear", root, "--engine", alone], "alone"),
        (["erase", root], "erase"),
        (["clear"], "FOLDER"),
    ]
    for arguments, named in bad:
        refuse("cache", *arguments, names=named)

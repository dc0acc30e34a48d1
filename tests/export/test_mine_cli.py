"""`murank adapt mine` as its users meet it."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_features import make_features
from mine_parts import MINE, SPLIT, Run
from mine_parts import features as features
from mine_parts import run as run
from PIL import Image
from refusal import Refuse

from murank import load_features, save_features
from murank.cli import main
from murank.pairs.labelled import load_pairs
from murank.sheet.drawing import UNREADABLE
from murank_export.adapt import mining
from murank_export.adapt.mining import mine_pairs
from murank_export.adapt.mining_settings import MiningSettings
from murank_kernels import align_cameras

FILES = {"train.json", "val.json", "mining.json"}
RANDOM = {"random_train.json", "random_val.json"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_candidates_of_aligned_features(run: Run, tmp_path: Path) -> None:
    """Against features that were aligned beforehand, all rows being gallery."""
    made = make_features(num_ids=40, num_cameras=3, num_distractors=9, dim=24, camera_shift=1.5)
    save_features(tmp_path / "f.npz", made)
    assert made.pids is not None
    assert made.camids is not None
    kept = made.pids > 0
    given, camids = made.features[kept], made.camids[kept]
    paths = [str(path) for path in made.paths[kept]]
    plain = mine_pairs(given, made.pids[kept], None, MiningSettings())
    expected: dict[str, Any] = {"off": given}
    for level in ("mean", "pairs"):
        expected[level] = align_cameras(given, camids, level=level, dims=None)
    expected["auto"] = expected["pairs"]
    for asked, rows in expected.items():
        options = [] if asked == "auto" else ["--align-cameras", asked]
        code, _, err = run("--features", tmp_path / "f.npz", "--overwrite", *options)
        assert code == 0, err
        mined = mine_pairs(rows, made.pids[kept], None, MiningSettings())
        folder = tmp_path / "out" / "pairs"
        found = load_pairs(folder / "train.json")
        assert found == mined.parts["train"].named(paths)
        assert (found == plain.parts["train"].named(paths)) == (asked == "off")
        record = json.loads((folder / "mining.json").read_text())
        assert record["alignment"] == {
            "asked": asked, "file": None, "level": "pairs" if asked == "auto" else asked,
            "dims": 24, "note": None,
        }  # fmt: skip


def test_a_fitted_alignment(run: Run, features: Path, tmp_path: Path) -> None:
    """Few images for `auto`; a file that was learnt elsewhere serves."""
    code, out, _ = run("--features", features, *SPLIT)
    assert code == 0
    folder, file = tmp_path / "out" / "pairs", tmp_path / "a.npz"
    note = json.loads((folder / "mining.json").read_text())["alignment"]["note"]
    assert "50" in note
    assert out.splitlines().count(note) == 1
    assert main(["align", str(features), "-o", str(file), "--align-cameras", "mean"]) == 0
    code, _, err = run("--features", features, *SPLIT, "--overwrite", "--alignment", file)
    assert code == 0, err
    how = json.loads((folder / "mining.json").read_text())["alignment"]
    assert (how["asked"], how["file"], how["level"]) == ("given", str(file), "mean")


def test_features_to_pairs(run: Run, features: Path, tmp_path: Path) -> None:
    code, out, err = run("--features", features, *SPLIT)
    assert code == 0, err
    assert err == (
        "note: 20 images left out, junk (pid -1) or distractors (pid 0 in Market-1501 names): they "
        "show no known person\n"
    )
    folder = tmp_path / "out" / "pairs"
    assert names(folder) == FILES
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {(folder / name).stat().st_mode & 0o777 for name in FILES} == {0o600}

    given = load_features(features)
    assert given.pids is not None
    kept = given.pids > 0
    mined = mine_pairs(given.features[kept], given.pids[kept], None, MiningSettings(val_ratio=0.25))
    paths = [str(path) for path in given.paths[kept]]
    for part in ("train", "val"):
        assert load_pairs(folder / f"{part}.json") == mined.parts[part].named(paths)

    record = json.loads((folder / "mining.json").read_text())
    sha256 = hashlib.sha256(features.read_bytes()).hexdigest()
    assert record["origin"] == {"features": "f.npz", "sha256": sha256}
    assert record["settings"] == {
        "k": 4, "val_ratio": 0.25, "seed": 0, "cross_camera": False, "random": False
    }  # fmt: skip
    assert (record["images"], record["people"]) == (int(kept.sum()), {"train": 9, "val": 3})
    assert record["left_out"] == {"junk_and_distractors": 20}
    pairs = mined.parts["val"]
    told = record["pairs"]["val"]
    assert told["queries"] == len(set(pairs.queries.tolist()))
    for kind, chosen in (("positives", pairs.match), ("negatives", ~pairs.match)):
        similarity = np.sort(pairs.similarity[chosen])
        assert told[kind]["pairs"] == len(similarity)
        assert told[kind]["queries"] == told["queries"]
        assert [*told[kind]["similarity"]] == ["min", "q1", "median", "q3", "max"]
        assert told[kind]["similarity"]["min"] == pytest.approx(similarity[0])
        assert told[kind]["similarity"]["max"] == pytest.approx(similarity[-1])
        assert told[kind]["similarity"]["median"] == pytest.approx(np.median(similarity))

    first, _, *rows, last, _ = out.splitlines()
    assert first == f"{kept.sum()} images; 9 people train, 3 validate"
    assert [" ".join(row.split()[:2]) for row in rows] == [
        "train positives", "train negatives", "val positives", "val negatives"
    ]  # fmt: skip
    assert re.search(
        rf"^val negatives +{told['queries']} +{told['negatives']['pairs']} +-?0\.", rows[3]
    )
    assert last == f"pairs: {folder}"


def test_json_and_the_random_baseline(run: Run, features: Path, tmp_path: Path) -> None:
    options = ("--features", features, *SPLIT, "--k", 2, "--seed", 3, "--random", "--cross-camera")
    code, out, err = run(*options, "--json", "--quiet")
    assert (code, err) == (0, "")
    folder = tmp_path / "out" / "pairs"
    assert names(folder) == FILES | RANDOM
    record = json.loads(out)
    assert record == json.loads((folder / "mining.json").read_text())
    assert record["settings"] == {
        "k": 2, "val_ratio": 0.25, "seed": 3, "cross_camera": True, "random": True
    }  # fmt: skip
    assert set(record["pairs"]) == {"train", "val", "random_train", "random_val"}
    for part in ("random_train", "random_val"):
        pairs, told = load_pairs(folder / f"{part}.json"), record["pairs"][part]
        assert len(pairs) == 2 * told["queries"]
        assert told["positives"]["pairs"] == sum(pair.match for pair in pairs)
    camera = re.compile(r"_c(\d)")
    for pair in load_pairs(folder / "train.json"):
        cameras = camera.findall(pair.query) + camera.findall(pair.candidate)
        assert not pair.match or cameras[0] != cameras[1]


def test_the_same_command_writes_the_same_bytes(run: Run, features: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "pairs"
    written = []
    for _ in range(2):
        assert run("--features", features, *SPLIT, "--random", "--overwrite")[0] == 0
        written.append({name: (folder / name).read_bytes() for name in names(folder)})
    assert written[0] == written[1]


def test_overwriting_is_asked_for_and_leaves_no_old_pairs(
    run: Run, features: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "pairs"
    assert run("--features", features, *SPLIT, "--random")[0] == 0
    (folder / "notes.txt").write_text("mine")
    before = (folder / "train.json").read_bytes()
    code, out, err = run("--features", features, "--val-ratio", 0.5)
    assert (code, out) == (2, "")
    assert err == (
        f"murank: error: {folder / 'mining.json'} exists; pass --overwrite or another folder\n"
    )
    assert (folder / "train.json").read_bytes() == before
    assert run("--features", features, "--val-ratio", 0.5, "--overwrite")[0] == 0
    assert names(folder) == FILES | {"notes.txt"}
    assert (folder / "train.json").read_bytes() != before


def test_training_paths_of_market_need_no_query(run: Run, features: Path, tmp_path: Path) -> None:
    given = load_features(features)
    file = tmp_path / "train.npz"
    names = np.char.replace(given.paths, "query/", "bounding_box_train/")
    assert given.pids is not None
    np.savez(file, features=given.features, paths=names, pids=given.pids)
    assert run("--features", file, *SPLIT)[0] == 0


def test_pid_0_is_a_person_where_no_name_says_otherwise(run: Run, tmp_path: Path) -> None:
    """MSMT17 counts from 0; nobody counts from -1."""
    rows = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    pids = np.array([0, 0, 1, 1, 2, 2, 3, 3, -1, -1])
    names = np.array([f"{pid:04d}/{row}.jpg" for row, pid in enumerate(pids)])
    np.savez(tmp_path / "f.npz", features=rows, paths=names, pids=pids)
    code, out, err = run("--features", tmp_path / "f.npz", "--val-ratio", 0.5, "--json")
    assert code == 0, err
    assert err.startswith("note: 2 images left out, junk")
    record = json.loads(out)
    assert record["images"] == 8
    assert record["people"] == {"train": 2, "val": 2}
    assert record["left_out"] == {"junk_and_distractors": 2}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_half_written(
    run: Run, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    folder = tmp_path / "out" / "pairs"
    calls: list[int] = []

    def full(_descriptor: int) -> None:
        calls.append(1)
        if len(calls) == 2:  # the first file is aside, the second is not
            raise error

    monkeypatch.setattr(os, "fsync", full)
    expected = 2 if isinstance(error, OSError) else 130
    code, out, err = run("--features", features, *SPLIT)
    assert (code, out) == (expected, "")
    assert ("No space left" in err) == (expected == 2)
    assert not (tmp_path / "out").exists()

    monkeypatch.undo()
    assert run("--features", features, *SPLIT)[0] == 0
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    calls.clear()
    monkeypatch.setattr(os, "fsync", full)
    assert run("--features", features, *SPLIT, "--k", 1, "--overwrite")[0] == expected
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


def test_an_interrupted_search_writes_nothing(
    run: Run, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mining, "other_people", stop)
    assert run("--features", features, *SPLIT)[0] == 130
    assert not (tmp_path / "out").exists()


@pytest.fixture
def crops(features: Path, tmp_path: Path) -> Path:
    """A picture for each row of the features."""
    for path in load_features(features).paths:
        (tmp_path / "root" / str(path)).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16), (10, 20, 250)).save(tmp_path / "root" / str(path), "PNG")
    return tmp_path / "root"


def test_a_sheet_of_features(
    run: Run, features: Path, crops: Path, tmp_path: Path, refuse: Refuse
) -> None:
    sheet = tmp_path / "s.png"
    options = ("--features", features, *SPLIT, "--k", 2, "--image-root", crops, "--sheet", sheet)
    assert run(*options)[0] == 0
    assert sheet.stat().st_mode & 0o777 == 0o600
    picture = np.asarray(Image.open(sheet).convert("RGB"))
    count = {
        name: int((picture == colour).all(axis=2).sum())
        for name, colour in (
            ("crop", (10, 20, 250)),
            ("match", (26, 143, 73)),
            ("other", (207, 45, 45)),
        )
    }
    # Twelve queries with two pairs of each kind; frames are 4 wide around 64 x 128.
    frame = 72 * 136 - 64 * 128
    assert count == {"crop": 12 * 5 * 64 * 128, "match": 24 * frame, "other": 24 * frame}
    mining_file = tmp_path / "out" / "pairs" / "mining.json"
    before = mining_file.read_bytes()
    mining_file.unlink()
    for name in ("train.json", "val.json"):
        mining_file.with_name(name).unlink()
    refuse(*MINE, tmp_path / "out" / "pairs", *options, names="s.png")
    assert run(*options, "--overwrite")[0] == 0
    assert mining_file.read_bytes() == before


def test_an_unreadable_image_is_grey(run: Run, features: Path, crops: Path, tmp_path: Path) -> None:
    for path in list((crops / "gallery").iterdir()):
        path.unlink()
    sheet = tmp_path / "s.png"
    options = ("--features", features, *SPLIT, "--image-root", crops, "--sheet", sheet)
    assert run(*options)[0] == 0
    picture = np.asarray(Image.open(sheet).convert("RGB"))
    assert (picture == np.array(UNREADABLE)).all(axis=2).sum() >= 64 * 128

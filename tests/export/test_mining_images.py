"""`murank adapt mine` from images: an engine embeds them."""

import json
from pathlib import Path

import numpy as np
import pytest
from image_job import PEOPLE, ImageJob, write_crop
from mine_parts import MINE, SPLIT, Run
from mine_parts import run as run
from PIL import Image
from plain_encoder import model, save
from refusal import Refuse

from murank import Engine, FeatureSet, save_features
from murank.cli import main
from murank.folder.manifest import engine_sha256
from murank.pairs.labelled import load_pairs


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageJob:
    """Crops of a few people, and an engine whose features are thumbnails."""
    return ImageJob(tmp_path, monkeypatch)


def test_images_to_pairs(run: Run, job: ImageJob, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 3))
    for name in ("-1_c1s1_000.png", "0000_c1s1_000.png", "0000_c2s1_000.png"):
        write_crop(job.gallery / name, pixels)
    broken = job.gallery / "0007_c1s1_000.png"
    broken.write_bytes(b"\x89PNG broken")
    sheet = tmp_path / "s.png"
    options = ("--engine", job.engine, "--images", job.query, job.gallery, "--val-ratio", 0.5)
    code, out, err = run(*options, "--json", "--sheet", sheet)
    assert code == 0, err
    notes = [line for line in err.splitlines() if line.startswith("note: ")]  # no slow progress
    assert notes[0].startswith("note: 3 images left out, junk (pid -1) or distractors")
    assert notes[1].startswith(f"note: 1 image left out, unreadable; the first: {broken}")
    assert len(notes) == 2
    record = json.loads(out)
    assert record["origin"] == {
        "images": ["query", "gallery"], "engine": "engine",
        "engine_sha256": engine_sha256(job.engine),
    }  # fmt: skip
    assert record["left_out"] == {"junk_and_distractors": 3, "unreadable": 1}
    assert record["images"] == job.done["embed"] == 3 * PEOPLE + 2
    assert [options["parts"] for options in job.loaded] == [["encoder"]]
    pairs = [
        pair
        for part in ("train", "val")
        for pair in load_pairs(tmp_path / f"out/pairs/{part}.json")
    ]
    assert all(Path(pair.query).is_file() and Path(pair.candidate).is_file() for pair in pairs)
    assert len({pair.query for pair in pairs}) == 3 * PEOPLE + 2
    people = {Path(pair.query).name[:4] for pair in pairs if pair.match}
    assert people == {f"{person:04d}" for person in range(1, PEOPLE + 1)}
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"


def test_an_engine_and_its_features_give_the_same_pairs(run: Run, tmp_path: Path) -> None:
    """A real engine: whole batches and a rest."""
    random = np.random.default_rng(2)
    for person in range(1, 13):
        for camera in (1, 2, 3):
            pixels = random.integers(0, 256, (16, 8, 3))
            write_crop(tmp_path / "train" / f"{person:04d}_c{camera}s1_000.png", pixels)
    engine = tmp_path / "engine"
    encoder = str(save(model(), tmp_path))
    assert main(["export", "--encoder", encoder, "-o", str(engine), "--quiet"]) == 0
    options = ("--engine", engine, "--images", tmp_path / "train", *SPLIT)
    assert run(*options, "--quiet")[0] == 0
    folder = tmp_path / "out" / "pairs"
    found = {part: load_pairs(folder / f"{part}.json") for part in ("train", "val")}

    images = sorted((tmp_path / "train").iterdir())
    rows = Engine.from_pretrained(engine, providers="cpu").embed(images)
    pids = np.array([int(path.name[:4]) for path in images])
    paths = np.array([str(path) for path in images])
    save_features(tmp_path / "f.npz", FeatureSet(rows, paths, pids, None, 1))
    assert run("--features", tmp_path / "f.npz", *SPLIT, "--overwrite")[0] == 0
    assert {part: load_pairs(folder / f"{part}.json") for part in found} == found


def test_images_without_labels(refuse: Refuse, job: ImageJob, tmp_path: Path) -> None:
    mine = (*MINE, tmp_path / "out" / "pairs", "--engine", job.engine, "--images")

    (job.gallery / "x.png").write_bytes(next(job.query.iterdir()).read_bytes())
    refuse(*mine, job.gallery, names="x.png")
    listed = tmp_path / "l.csv"
    listed.write_text("path\nquery/0001_c1s1_000.png\n")
    refuse(*mine, listed, names="l.csv")
    refuse(*mine, job.query, job.query, names=job.query)
    refuse(*mine, tmp_path / "nowhere", names="nowhere")
    assert job.loaded == []


def test_a_list_of_images(run: Run, refuse: Refuse, job: ImageJob, tmp_path: Path) -> None:
    listed = tmp_path / "l.csv"
    images = sorted([*job.query.iterdir(), *job.gallery.iterdir()])
    rows = [f"{path},{int(path.name[:4]) - 1}" for path in images]
    listed.write_text("\n".join(["path,pid", *rows]))
    options = ("--engine", job.engine, "--images", listed, "--val-ratio", 0.5)
    code, out, err = run(*options, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["images"] == len(images)
    given = (*options, "--overwrite", "--cross-camera")
    refuse(*MINE, tmp_path / "out" / "pairs", *given, names="--cross-camera")

"""A full disk, and a kill, at each step of each verb that ranks or draws."""

from pathlib import Path

import pytest
from faults.covered import written
from faults.everywhere import Command, check_every_step
from gallery_engines import feature_engine, people
from image_job import ImageJob, change_crop
from made_features import make_features

from murank import save_features
from murank.cli import main
from murank.folder.manifest import read_manifest
from murank.gallery import Gallery
from murank.jobs import read_job

TINY = (
    "--domain", "mall", "--people", 1, "--distractors", 1, "--cameras", 2, "--seen-by", 2,
    "--quiet",
)  # fmt: skip
TIMES = ("seconds", "stages", "cpu_seconds", "peak_memory_mib", "total_seconds")


def verb(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "work"


@written("world --output", "world --sheet")
@pytest.mark.parametrize("again", [False, True])
def test_world(root: Path, tmp_path: Path, again: bool) -> None:
    options = ["world", "-o", root / "deep" / "world", *TINY, "--sheet", root / "sheet.png"]
    if again:
        assert verb(*options, "--seed", 7) == 0
        options.append("--overwrite")
    command = Command(
        root, lambda: verb(*options), lambda: verb(*options, "--overwrite"),
        seal="deep/world/world.json",
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")


@pytest.fixture
def features(tmp_path: Path) -> Path:
    made = make_features(num_ids=4, num_cameras=2, images_per_camera=2, num_distractors=4, dim=8)
    save_features(tmp_path / "f.npz", made)
    return tmp_path / "f.npz"


@written("align --output")
@pytest.mark.parametrize("again", [False, True])
def test_align(root: Path, tmp_path: Path, features: Path, again: bool) -> None:
    options = ["align", features, "-o", root / "a" / "a.npz", "--quiet"]
    if again:
        assert verb(*options, "--align-cameras", "mean", "--align-dims", 3) == 0
        options.append("--overwrite")
    command = Command(root, lambda: verb(*options), lambda: verb(*options, "--overwrite"))
    check_every_step(command, tmp_path / "spare")


@written("gallery export --output", "gallery backup --output")
@pytest.mark.parametrize("name", ["export", "backup"])
def test_gallery_copies(root: Path, tmp_path: Path, name: str) -> None:
    file, copy = tmp_path / "gallery.db", root / "copy"
    with Gallery.open(file, feature_engine()) as gallery:
        gallery.add(features=people(4, 2), camera=0, time=0, id=[f"{i}" for i in range(8)])
    root.mkdir()

    options = ["gallery", name, file, "-o", copy]
    command = Command(root, lambda: verb(*options), lambda: verb(*options, "--overwrite"))
    check_every_step(command, tmp_path / "spare")


@written("rerank --output")
@pytest.mark.parametrize("kind", ["npz", "npz again", "parquet"])
def test_rerank_features(root: Path, tmp_path: Path, features: Path, kind: str) -> None:
    options = ["rerank", features, "--method", "none", "-o", root / "out", "--quiet"]
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        options += ["--format", kind]
    if kind == "npz again":
        assert verb(*options, "--top-k", 3, "--format", "jsonl") == 0
    command = Command(
        root, lambda: verb(*options, "--overwrite"), seal="out/summary.json", changing=TIMES
    )
    check_every_step(command, tmp_path / "spare")


@written("evaluate --store")
def test_store(job: ImageJob, tmp_path: Path) -> None:
    """The engine is the old one or the new one at every step; without --store nothing changes."""
    assert job.run("-o", job.out, "--candidates", 3, "--quiet") == 0
    options = ["evaluate", job.out, "--propose", "--quiet"]
    before = (job.engine / "manifest.json").read_bytes()
    assert verb(*options) == 0
    assert (job.engine / "manifest.json").read_bytes() == before
    command = Command(
        job.engine, lambda: verb(*options, "--store", job.engine),
        read=lambda: read_manifest(job.engine),
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")


@written("score --output")
@pytest.mark.parametrize("again", [False, True])
def test_score(job: ImageJob, tmp_path: Path, again: bool) -> None:
    options = ["--candidates", 3, "-o", job.out, "--quiet"]
    if again:
        assert job.run(*options, "--order", "both") == 0
        assert job.rank("-o", job.out, "--quiet") == 0
        change_crop(next(job.gallery.iterdir()))  # features and mu are not as they were
        options.append("--overwrite")

    def read() -> object:
        """What `murank rerank` takes from the folder."""
        found = read_job(job.out)
        return [file.read_bytes() for file in (found.features, *found.mu, *found.gallery_mu)]

    command = Command(
        job.out,
        lambda: job.run(*options),
        lambda: job.run(*options, "--overwrite"),
        seal="job.json",
        read=read,  # a stage that job.json no longer names may still be there
        kept=r"^\.murank-batch|^features.npz$|^mu(_swapped)?.npz$|^ranking.npz$|^summary.json$",
        growing=r"^journal",
        changing=(*TIMES, "images_embedded", "pairs_asked", "vision_tokens", "inputs"),
    )
    check_every_step(command, tmp_path / "spare")


@written("rerank --output", "rerank --sheet", "rerank --report")
@pytest.mark.parametrize("again", [False, True])
def test_rerank_a_job(job: ImageJob, tmp_path: Path, again: bool) -> None:
    """In its own folder; the job stays as it is at every step."""
    assert job.run("--candidates", 3, "--quiet") == 0
    made = {path.name: path.read_bytes() for path in job.out.iterdir() if path.is_file()}
    options = ["-o", job.out, "--quiet", "--sheet", job.out / "sheet.png"]
    options += ["--report", job.out / "r.html"]
    if again:
        assert job.rank(*options, method="none") == 0

    def read() -> object:
        """What was there before."""
        found = {name: (job.out / name).read_bytes() for name in made}
        assert found == made
        return found

    command = Command(
        job.out, lambda: job.rank(*options, "--overwrite"), seal="summary.json", read=read,
        kept=r"^(features|mu).npz$|^job.json$|^journal|^sheet.png$|^r.html$", changing=TIMES,
        varying=r"/r.html$",
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")

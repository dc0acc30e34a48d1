import json
from pathlib import Path

import numpy as np
import pytest
from image_job import NUM_GALLERY, NUM_IMAGES, NUM_QUERY, FakeEngine, ImageJob
from PIL import Image

from murank import MachineError, load_features, load_mu


def spoil(folder: Path, *rows: int) -> list[Path]:
    """Let some images of a folder be no images."""
    paths = [sorted(folder.iterdir())[row] for row in rows]
    for path in paths:
        path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return paths


def test_unreadable_images_are_skipped(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [*spoil(job.query, 1), *spoil(job.gallery, 0, 9)]
    assert job.run("-o", job.out, "--candidates", 50) == 0
    out, _ = capsys.readouterr()
    assert "3 images skipped (listed in job.json):\n" in out
    summary = job.report()
    assert [one["path"] for one in summary["skipped"]] == [str(path) for path in bad]
    for one in summary["skipped"]:
        assert one["path"] in one["reason"]
    assert summary["counts"]["num_query"] == NUM_QUERY - 1
    assert summary["counts"]["num_gallery"] == NUM_GALLERY - 2
    features = load_features(job.out / "features.npz")
    assert features.num_query == NUM_QUERY - 1
    assert not {str(path) for path in bad} & set(features.paths.tolist())
    assert load_mu(job.out / "mu.npz").candidates.max() == NUM_GALLERY - 3
    assert job.ranking().labels is not None


def test_they_stay_known_when_features_are_reused(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(job.gallery, 2)
    assert job.run("-o", job.out) == 0
    assert job.run("-o", job.out, "--overwrite") == 0
    assert job.done == {}
    assert "1 image skipped (listed in job.json):\n" in capsys.readouterr().out
    assert len(job.report()["skipped"]) == 1
    assert job.run("-o", job.out, "--overwrite", "--strict") == 2
    assert "(--strict)" in capsys.readouterr().err


def test_they_stay_known_when_embedding_goes_on(job: ImageJob) -> None:
    spoil(job.query, 0, 1)
    job.stop_at = ("embed", 6)
    assert job.run("-o", job.out) == 130
    job.stop_at = None
    assert job.run("-o", job.out) == 0
    summary = job.report()
    assert len(summary["skipped"]) == 2
    assert summary["stages"]["features.npz"] == "resumed"


def test_who_ranks_is_told(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(job.gallery, 2)
    assert job.run() == 0
    capsys.readouterr()
    assert job.rank() == 0
    assert "1 image skipped (listed in job.json):\n" in capsys.readouterr().out
    assert job.rank("--json") == 0
    assert json.loads(capsys.readouterr().out)["job"]["skipped"] == job.report()["skipped"]


def test_a_whole_part_may_be_unreadable(job: ImageJob) -> None:
    spoil(job.gallery, 0, 1, 2, 3)  # part 1 of 4 images each
    assert job.run("-o", job.out) == 0
    assert job.done["embed"] == NUM_IMAGES - 4


def test_strict_stops_at_the_first(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    (bad, _) = spoil(job.gallery, 6, 8)
    assert job.run("-o", job.out, "--strict") == 2
    err = capsys.readouterr().err
    assert f"murank: error: {bad} is not a" in err
    assert err.count("\n") == 1
    embedded = job.done["embed"]
    assert embedded < NUM_IMAGES - 2
    assert job.names() == {".murank-batch"}
    bad.write_bytes((job.gallery / "0001_c2s1_000.png").read_bytes())
    spare = sorted(job.gallery.iterdir())[8]
    spare.write_bytes(bad.read_bytes())
    assert job.run("-o", job.out, "--strict") == 0
    assert job.done["embed"] == NUM_IMAGES - embedded - 2, "two are copies of another"


def test_a_listed_file_that_is_not_there_is_skipped(job: ImageJob, tmp_path: Path) -> None:
    names = [f"gallery/{path.name}" for path in sorted(job.gallery.iterdir())]
    (tmp_path / "gallery.csv").write_text("\n".join(["path", *names, "gallery/gone.png"]))
    source = ["--query", job.query, "--gallery", tmp_path / "gallery.csv"]
    assert job.run("-o", job.out, source=source) == 0
    (skipped,) = job.report()["skipped"]
    assert skipped["path"].endswith("gone.png")
    assert load_features(job.out / "features.npz").num_gallery == NUM_GALLERY


@pytest.mark.parametrize(("name", "rows"), [("query", range(4)), ("gallery", range(10))])
def test_nothing_left(
    job: ImageJob, capsys: pytest.CaptureFixture[str], name: str, rows: range
) -> None:
    bad = spoil(job.folder / name, *rows)
    assert job.run("-o", job.out) == 2
    err = capsys.readouterr().err
    assert f"no {name} image can be read; the first: {bad[0]}" in err


def test_features_that_are_no_numbers(
    job: ImageJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = FakeEngine.embed

    def overflow(engine: FakeEngine, images: list[object]) -> object:
        rows = embed(engine, images)  # type: ignore[arg-type]
        rows[-1, 3] = np.nan
        return rows

    monkeypatch.setattr(FakeEngine, "embed", overflow)
    assert job.run("-o", job.out) == 2
    assert "0002_c1s1_000.png: the encoder gives NaN" in capsys.readouterr().err
    assert not job.out.exists()


def test_an_image_that_is_too_elongated_is_skipped(job: ImageJob) -> None:
    long = sorted(job.gallery.iterdir())[3]
    Image.new("RGB", (1, 50_000)).save(long)
    assert job.run("-o", job.out) == 0
    (skipped,) = job.report()["skipped"]
    assert skipped["path"] == str(long)
    assert skipped["reason"].startswith(f"{long} is 1 x 50000, more than")
    assert load_features(job.out / "features.npz").num_gallery == NUM_GALLERY - 1


def test_a_fault_of_the_machine_names_the_queries(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_arguments: object, **_options: object) -> None:
        raise MachineError("decoder.onnx: the GPU failed")

    monkeypatch.setattr(FakeEngine, "mu_many", fault)
    assert job.run("-o", job.out) == 3
    first = sorted(job.query.iterdir())[0]
    assert f"while asking about {first}" in (error := capsys.readouterr().err)
    assert "the GPU failed" in error
    assert (job.out / "features.npz").exists()  # what was finished stays
    assert not (job.out / "mu.npz").exists()

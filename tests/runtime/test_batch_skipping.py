import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import NUM_GALLERY, NUM_IMAGES, NUM_QUERY, FakeEngine, ImageJob
from PIL import Image

from murank import InputError, load_features, load_mu, load_ranking


def spoil(folder: Path, *rows: int) -> list[Path]:
    """Let some images of a folder be no images."""
    paths = [sorted(folder.iterdir())[row] for row in rows]
    for path in paths:
        path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return paths


def test_unreadable_images_are_skipped(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [*spoil(job.query, 1), *spoil(job.gallery, 0, 9)]
    assert job.run("-o", job.out, "--top-k-candidates", 50) == 0
    out, _ = capsys.readouterr()
    assert "3 images skipped (listed in summary.json)\n" in out
    summary = json.loads((job.out / "summary.json").read_text())
    assert [one["path"] for one in summary["skipped"]] == [str(path) for path in bad]
    for one in summary["skipped"]:
        assert one["path"] in one["reason"]
    assert summary["counts"]["num_query"] == NUM_QUERY - 1
    assert summary["counts"]["num_gallery"] == NUM_GALLERY - 2
    features = load_features(job.out / "features.npz")
    assert features.num_query == NUM_QUERY - 1
    assert not {str(path) for path in bad} & set(features.paths.tolist())
    assert load_mu(job.out / "mu.npz").candidates.max() == NUM_GALLERY - 3
    assert load_ranking(job.out).labels is not None


def test_they_stay_known_when_features_are_reused(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(job.gallery, 2)
    assert job.run("-o", job.out) == 0
    assert job.run("-o", job.out, "--overwrite", "--method", "ecn") == 0
    assert job.done == {}
    assert "1 image skipped (listed in summary.json)\n" in capsys.readouterr().out
    assert len(json.loads((job.out / "summary.json").read_text())["skipped"]) == 1
    assert job.run("-o", job.out, "--overwrite", "--strict") == 2
    assert "(--strict)" in capsys.readouterr().err


def test_they_stay_known_when_embedding_goes_on(job: ImageJob) -> None:
    spoil(job.query, 0, 1)
    job.stop_at = ("embed", 6)
    assert job.run("-o", job.out) == 130
    job.stop_at = None
    assert job.run("-o", job.out) == 0
    summary = json.loads((job.out / "summary.json").read_text())
    assert len(summary["skipped"]) == 2
    assert summary["stages"]["features.npz"] == "resumed"


def test_without_output_they_are_in_the_json(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(job.gallery, 2)
    assert job.run() == 0
    assert "1 image skipped (listed with --json)\n" in capsys.readouterr().out
    assert job.run("--json") == 0
    assert len(json.loads(capsys.readouterr().out)["skipped"]) == 1


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
    assert job.done["embed"] < NUM_IMAGES - 2
    assert job.names() == {".murank-batch"}
    bad.write_bytes((job.gallery / "0001_c2s1_000.png").read_bytes())
    spare = sorted(job.gallery.iterdir())[8]
    spare.write_bytes(bad.read_bytes())
    assert job.run("-o", job.out, "--strict") == 0
    assert job.done["embed"] == NUM_IMAGES - 8


def test_a_listed_file_that_is_not_there_is_skipped(job: ImageJob, tmp_path: Path) -> None:
    names = [f"gallery/{path.name}" for path in sorted(job.gallery.iterdir())]
    (tmp_path / "gallery.csv").write_text("\n".join(["path", *names, "gallery/gone.png"]))
    source = ["--query", job.query, "--gallery", tmp_path / "gallery.csv"]
    assert job.run("-o", job.out, source=source) == 0
    (skipped,) = json.loads((job.out / "summary.json").read_text())["skipped"]
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


def test_mu_that_is_no_number(
    job: ImageJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(
        _engine: FakeEngine, queries: list[object], candidates: list[list[object]], *, order: str
    ) -> object:
        del order
        return np.full((len(queries), len(candidates[0])), np.nan, np.float32)

    monkeypatch.setattr(FakeEngine, "score", overflow)
    assert job.run("-o", job.out) == 2
    assert "0001_c1s1_000.png: the engine gives no mu in [0, 1]" in capsys.readouterr().err
    assert job.names() == {".murank-batch", "features.npz"}


def refuse_wide_images(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the engine find fault with an image that was decoded well."""
    whole = getattr(FakeEngine, name)

    def refuse(engine: FakeEngine, images: list[Image.Image], *rest: Any, **options: Any) -> Any:
        if any(image.width > 50 for image in images):
            raise InputError("image is too elongated")
        return whole(engine, images, *rest, **options)

    monkeypatch.setattr(FakeEngine, name, refuse)


def test_an_image_that_the_encoder_refuses_is_skipped(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = sorted(job.gallery.iterdir())[3]
    Image.new("RGB", (60, 2)).save(wide)
    refuse_wide_images(monkeypatch, "embed")
    assert job.run("-o", job.out) == 0
    (skipped,) = json.loads((job.out / "summary.json").read_text())["skipped"]
    assert skipped == {"path": str(wide), "reason": f"{wide}: image is too elongated"}
    assert load_features(job.out / "features.npz").num_gallery == NUM_GALLERY - 1


def test_an_image_that_the_scorer_refuses_is_named(
    job: ImageJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = sorted(job.query.iterdir())[2]
    Image.new("RGB", (60, 2), (9, 200, 60)).save(wide)
    refuse_wide_images(monkeypatch, "score")
    assert job.run("-o", job.out) == 2
    assert f"murank: error: {wide}: image is too elongated\n" in capsys.readouterr().err
    assert job.names() == {".murank-batch", "features.npz"}


def test_mu_from_elsewhere_is_about_the_images_that_can_be_read(
    job: ImageJob, tmp_path: Path
) -> None:
    spoil(job.query, 1)
    assert job.run("-o", job.out) == 0
    mu = tmp_path / "mu.npz"
    mu.write_bytes((job.out / "mu.npz").read_bytes())
    before = load_ranking(job.out).distances
    assert job.run("-o", tmp_path / "again", "--mu", mu) == 0
    np.testing.assert_array_equal(load_ranking(tmp_path / "again").distances, before)

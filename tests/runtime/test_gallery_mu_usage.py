"""Mistakes about mu between gallery images show before any work, in one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import ImageJob, write_crop

from murank import load_features
from murank.cli import main

G = 80  # gallery images of `feature_file`


def gallery_file(folder: Path, num_gallery: int, **changes: Any) -> Path:
    """Mu of each gallery image and the next two."""
    arrays = {
        "probs": np.full((num_gallery, 2), 0.5),
        "gallery_indices": (np.arange(num_gallery)[:, None] + [1, 2]) % num_gallery,
    }
    file = folder / "gallery.npz"
    np.savez(file, **{**arrays, **changes})
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"probs": np.full((3, 2), 0.5)}, "gallery_indices"),
        ({"probs": np.zeros((G, 2), int)}, "probs must be floating point"),
        ({"probs": np.full((G, 2), 1.5)}, "probs must be in [0, 1]"),
        ({"gallery_indices": np.tile([0, 1], (G, 1))}, "gallery image 0 name that image itself"),
        ({"gallery_indices": np.full((G, 2), G)}, "gallery_candidates"),
        ({"gallery_indices": np.tile([54, 54], (G, 1))}, "gallery image 0 name one item twice"),
    ],
)
def test_files_that_do_not_fit(
    feature_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    message: str | None,
) -> None:
    assert load_features(feature_file).num_gallery == G
    file = gallery_file(tmp_path, G, **changes)
    options = [str(feature_file), "--gallery-mu", str(file), "--quiet"]
    code = main(["rerank", *options, "--method", "ecn", "-o", str(tmp_path / "out")])
    err = capsys.readouterr().err
    if message is None:
        assert (code, err) == (0, "")
        return
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_gallery(
    feature_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(feature_file), "--gallery-mu", str(gallery_file(tmp_path, G - 1))]
    assert main(["rerank", *options, "--method", "k-reciprocal"]) == 2
    assert "--gallery-mu must have shape [80, M], got (79, 2)" in capsys.readouterr().err
    assert main(["rerank", *options[:2], "nowhere.npz", "--method", "ecn"]) == 2
    assert "nowhere.npz: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--mu", "--gallery-mu"])
def test_a_file_that_does_not_fit_the_job(
    job: ImageJob, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert job.run("-o", job.out, "--no-mu") == 0
    again = job.folder / "again"
    assert job.rank(option, gallery_file(job.folder, 3), "-o", again) == 2
    assert "mu must have shape" in capsys.readouterr().err
    assert not again.exists()


def test_one_gallery_image(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    alone = job.folder / "alone"
    write_crop(alone / "0001_c2s1_000.png", np.full((8, 4, 3), 90))
    source = ["--query", job.query, "--gallery", alone]
    assert job.run("-o", job.out, "--gallery-candidates", 3, source=source) == 2
    assert "needs at least two of them; leave out --gallery-candidates" in capsys.readouterr().err
    assert job.loaded == []
    assert not job.out.exists()


def test_one_gallery_image_that_can_be_read(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in sorted(job.gallery.iterdir())[1:]:
        file.write_bytes(b"no picture")
    assert job.run("-o", job.out, "--gallery-candidates", 3) == 2
    assert "needs at least two of them; leave out --gallery-candidates" in capsys.readouterr().err
    assert "given" not in job.done

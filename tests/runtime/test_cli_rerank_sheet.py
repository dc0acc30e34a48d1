from pathlib import Path

import numpy as np
import pytest
from image_job import ImageJob
from PIL import Image

from murank import load_features
from murank.cli import main


def test_a_sheet_of_what_changed(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = job.out / "sheet.png"
    assert job.run() == 0
    assert job.rank("-o", job.out, "--sheet", sheet) == 0
    assert f"sheet: {sheet}" in capsys.readouterr().out
    assert job.names() >= {"sheet.png", "ranking.npz"}
    assert sheet.stat().st_mode & 0o777 == 0o600
    with Image.open(sheet) as picture:
        assert picture.width > 500
    assert job.rank("-o", job.out, "--sheet", sheet) == 2
    assert job.rank("-o", job.out, "--sheet", sheet, "--overwrite") == 0


@pytest.mark.parametrize("method", ["none", "simple"])
def test_a_sheet_without_output_and_labels(job: ImageJob, tmp_path: Path, method: str) -> None:
    for path in sorted(job.gallery.iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    assert job.run() == 0
    before = job.names()
    assert job.rank("--sheet", tmp_path / "s.png", method=method) == 0
    assert (tmp_path / "s.png").exists()
    assert job.names() == before


def test_an_existing_file_is_not_replaced_unasked(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "s.png"
    sheet.write_text("mine")
    assert job.run() == 0
    assert job.rank("--sheet", sheet) == 2
    assert "exists; pass --overwrite" in capsys.readouterr().err
    assert sheet.read_text() == "mine"
    assert job.rank("--sheet", sheet, "--overwrite") == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_a_sheet_of_features(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--no-mu") == 0
    given = load_features(job.out / "features.npz")
    names = [str(Path(path).relative_to(tmp_path)) for path in given.paths]
    file, sheet = tmp_path / "f.npz", tmp_path / "s.png"
    np.savez(file, features=given.features, paths=np.array(names))
    arguments = ["rerank", file, "--method", "ecn", "--sheet", sheet]
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 2
    assert "none of the queries is there, as query/0001_c1s1_000.png; --image-root" in (
        capsys.readouterr().err
    )
    assert main(list(map(str, [*arguments, "--image-root", tmp_path]))) == 0
    assert sheet.exists()


def test_a_sheet_from_elsewhere(
    job: ImageJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths that were listed start where murank score ran, wherever rerank does."""
    monkeypatch.chdir(tmp_path)
    source = ["--query", job.query.relative_to(tmp_path), "--gallery", job.gallery]
    assert job.run(source=source) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert job.rank("--sheet", tmp_path / "s.png") == 0
    assert job.rank("--sheet", tmp_path / "t.png", "--image-root", elsewhere) == 2

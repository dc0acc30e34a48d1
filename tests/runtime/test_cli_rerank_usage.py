"""Which options of `murank rerank` go together."""

from pathlib import Path

import pytest
from engine_folder import edit_manifest
from image_job import ImageJob

from murank.cli import main

FOLDERS = ["--query", "q", "--gallery", "g"]
IMAGES = ["--engine", "e", *FOLDERS]
SCORED = ["--engine", "e", "--features", "f.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one source is needed"),
        (["--engine", "e"], "one source is needed"),
        ([*IMAGES, "--features", "f"], "but --features, --query and --gallery are given"),
        ([*IMAGES, "--dataset", "grid", "--root", "r"], "--query and --gallery, --dataset are"),
        (FOLDERS, "--query needs --engine"),
        (["--engine", "e", "--query", "q"], "--query needs --gallery"),
        (["--engine", "e", "--gallery", "g"], "--gallery needs --query"),
        (["--engine", "e", "--dataset", "grid"], "--dataset needs --root"),
        (["--dataset", "grid", "--root", "r"], "--dataset needs --engine"),
        ([*IMAGES, "--root", "r"], "--root needs --dataset"),
        ([*IMAGES, "--split", "0"], "--split needs --dataset"),
        ([*IMAGES, "--boxes", "labeled"], "--boxes needs --dataset"),
        ([*IMAGES, "--num-query", "3"], "--num-query needs --features"),
        ([*IMAGES, "--image-root", "r"], "--image-root needs --features"),
        (["--features", "f", "--image-root", "r"], "--image-root needs --engine or --sheet"),
        ([*IMAGES, "--mu-swapped", "m"], "--mu-swapped needs --mu"),
        ([*IMAGES, "--mu", "m", "--no-mu"], "--mu and --no-mu contradict each other"),
        ([*IMAGES, "--mu", "m", "--order", "both"], "--order has no effect with --mu"),
        ([*IMAGES, "--no-mu", "--top-k-candidates", "3"], "--top-k-candidates has no effect with"),
        ([*IMAGES, "--no-mu", "--vision-cache-mb", "0"], "--vision-cache-mb has no effect with"),
        ([*IMAGES, "--no-mu", "--alpha", "0.3"], "--alpha weighs mu-distances: it needs --mu"),
        ([*IMAGES, "--no-mu", "--method", "simple"], "needs --mu, or --engine without --no-mu"),
        ([*IMAGES, "--method", "none", "--order", "both"], "no effect with --method none"),
        ([*IMAGES, "--method", "none", "--mu", "m"], "--method none does not use --mu"),
        ([*SCORED, "--mu", "m"], "--features and --mu leave nothing for --engine to do"),
        ([*SCORED, "--no-mu"], "--features and --no-mu leave nothing for --engine"),
        ([*SCORED, "--method", "none"], "--features and --method none leave nothing"),
        (["--features", "f", "--strict"], "--strict needs --engine"),
        (["--features", "f", "--no-mu"], "--no-mu needs --engine"),
        (["--features", "f", "--order", "given"], "--order needs --engine"),
        (["--features", "f", "--top-k-candidates", "3"], "--top-k-candidates needs --engine"),
        (["--features", "f", "--providers", "cpu"], "--providers needs --engine"),
        (["--features", "f", "--threads", "2"], "--threads needs --engine"),
        (["--features", "f", "--vision-cache-mb", "0"], "--vision-cache-mb needs --engine"),
        (["--features", "f", "--cache-dir", "c"], "--cache-dir needs --engine"),
        ([*IMAGES, "--cache-max-mb", "5"], "--cache-max-mb needs --cache-dir"),
        ([*IMAGES, "--cache-max-days", "5"], "--cache-max-days needs --cache-dir"),
        ([*IMAGES, "--cache-max-days", "nan"], "must be a number above 0"),
        (["--features", "f", "--engine-sha256", "c"], "--engine-sha256 needs --engine"),
        (["--features", "f", "--sheet", "s.jpg"], "--sheet writes a PNG"),
        ([*IMAGES, "--format", "npz"], "--format needs -o"),
        ([*IMAGES, "--overwrite"], "--overwrite needs -o or --sheet"),
        ([*IMAGES, "--order", "all"], "invalid choice: 'all'"),
        ([*IMAGES, "--top-k-candidates", "0"], "must be at least 1"),
        ([*IMAGES, "--vision-cache-mb", "-1"], "must be at least 0"),
        (
            [*IMAGES, "--providers", "gpu"],
            "must be auto, cpu, cuda, tensorrt, tensorrt-plans, or a list",
        ),
        ([*IMAGES, "--providers", "cuda,cpu"], "or a list like CUDAExecutionProvider,CPU"),
        ([*IMAGES, "--dataset", "imagenet"], "invalid choice: 'imagenet'"),
    ],
)
def test_options_that_contradict_each_other(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    if "--method" not in options:
        options = [*options, "--method", "k-reciprocal"]
    assert main(["rerank", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("murank: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_an_engine_without_a_scorer(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    edit_manifest(job.engine, lambda data: data.update(scorer=None))
    assert job.run("-o", job.out) == 2
    assert "has no scorer of image pairs" in capsys.readouterr().err
    assert job.loaded == []
    assert not job.out.exists()
    assert job.run("-o", job.out, "--no-mu") == 0
    assert job.run("-o", job.out, "--overwrite", "--method", "none") == 0


def test_an_engine_without_an_encoder(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--no-mu") == 0
    edit_manifest(job.engine, lambda data: data.update(encoder=None))
    assert job.run() == 2
    assert "has no encoder; pass --features" in capsys.readouterr().err
    assert job.run("--json", source=["--features", job.out / "features.npz"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "nowhere"], "nowhere is not a folder"),
        (["--query", "nowhere"], "nowhere: no such file or folder"),
        (["--k1", "0"], "k1 must be a whole number"),
        (["--alpha", "2"], "alpha must be in [0, 1]"),
        (["--mu", "nowhere.npz"], "nowhere.npz: no such file"),
    ],
)
def test_mistakes_show_before_any_work(
    job: ImageJob, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert job.run("-o", job.out, *options) == 2
    assert message in capsys.readouterr().err
    assert job.loaded == []
    assert not job.out.exists()


def test_ca_jaccard_needs_cameras_before_any_work(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.csv").write_text("path\nquery/0001_c1s1_000.png\n")
    source = ["--query", tmp_path / "q.csv", "--gallery", job.gallery]
    assert job.run("--method", "ca-jaccard", source=source) == 2
    assert "ca-jaccard needs camids" in capsys.readouterr().err
    assert job.loaded == []


@pytest.mark.parametrize("place", ["a file", "below a file", "a file of others"])
def test_output_that_cannot_be(
    job: ImageJob, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    if place == "a file of others":
        job.out.mkdir()
        (job.out / "mine.txt").write_text("mine")
    else:
        job.out.write_text("mine")
    assert job.run("-o", job.out / "deeper" if place == "below a file" else job.out) == 2
    assert str(job.out) in capsys.readouterr().err
    assert job.loaded == []

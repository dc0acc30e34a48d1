"""Which options of `murank score` go together, and what shows before any work."""

import pytest
from engine_folder import edit_manifest
from image_job import ImageJob

from murank.cli import main

IMAGES = ["--query", "q", "--gallery", "g"]
FEATURES = ["--features", "f.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--query --dataset --features is required"),
        ([*IMAGES, *FEATURES], "not allowed with argument --query"),
        ([*IMAGES, "--dataset", "grid", "--root", "r"], "not allowed with argument --query"),
        (["--query", "q"], "--query needs --gallery"),
        (["--gallery", "g"], "is required"),
        ([*FEATURES, "--gallery", "g"], "--gallery needs --query"),
        (["--dataset", "grid"], "--dataset needs --root"),
        ([*IMAGES, "--root", "r"], "--root needs --dataset"),
        ([*IMAGES, "--split", "0"], "--split needs --dataset"),
        ([*IMAGES, "--boxes", "labeled"], "--boxes needs --dataset"),
        ([*IMAGES, "--num-query", "3"], "--num-query needs --features"),
        ([*IMAGES, "--image-root", "r"], "--image-root needs --features"),
        ([*IMAGES, "--no-mu", "--candidates", "3"], "--candidates has no effect with"),
        ([*IMAGES, "--no-mu", "--gallery-candidates", "3"], "--gallery-candidates has no effect"),
        ([*IMAGES, "--no-mu", "--order", "both"], "--order has no effect with"),
        ([*IMAGES, "--no-mu", "--vision-cache-mb", "0"], "--vision-cache-mb has no effect with"),
        ([*IMAGES, "--no-mu", "--cache-dir", "c"], "--cache-dir has no effect with"),
        ([*FEATURES, "--no-mu"], "--features has no effect with --no-mu"),
        ([*IMAGES, "--cache-max-mb", "5"], "--cache-max-mb needs --cache-dir"),
        ([*IMAGES, "--cache-max-days", "5"], "--cache-max-days needs --cache-dir"),
        ([*IMAGES, "--cache-max-days", "nan"], "must be a number above 0"),
        ([*IMAGES, "--order", "all"], "invalid choice: 'all'"),
        ([*IMAGES, "--candidates", "0"], "must be at least 1"),
        ([*IMAGES, "--gallery-candidates", "0"], "must be at least 1"),
        ([*IMAGES, "--gallery-candidates", "few"], "a whole number, got 'few'"),
        ([*IMAGES, "--vision-cache-mb", "-1"], "must be at least 0"),
        ([*IMAGES, "--providers", "gpu"], "must be auto, cpu, cuda, tensorrt"),
        ([*IMAGES, "--providers", "cuda,cpu"], "or a list like CUDAExecutionProvider,CPU"),
        (["--dataset", "imagenet"], "invalid choice: 'imagenet'"),
        ([*IMAGES, "--method", "simple"], "unrecognized arguments: --method"),
    ],
)
def test_options_that_contradict_each_other(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["score", "e", *options, "-o", "job"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("murank: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_place_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "e", *IMAGES]) == 2
    assert "-o/--output" in capsys.readouterr().err


def test_an_engine_without_a_scorer(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    edit_manifest(job.engine, lambda data: data.update(scorer=None))
    assert job.run() == 2
    assert "has no scorer of image pairs" in capsys.readouterr().err
    assert job.loaded == []
    assert not job.out.exists()
    assert job.run("--no-mu") == 0


def test_an_engine_without_an_encoder(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("--no-mu") == 0
    edit_manifest(job.engine, lambda data: data.update(encoder=None))
    again = job.folder / "again"
    assert job.run("-o", again) == 2
    assert "has no encoder; pass --features" in capsys.readouterr().err
    assert job.run("-o", again, source=["--features", job.out / "features.npz"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--query", "nowhere"], "nowhere: no such file or folder"),
        (["--sha256", "ab" * 32], "sha256"),
        (["--align-cameras", "off", "--align-dims", "3"], "--align-dims has no effect"),
        (["--align-cameras", "mean", "--align-dims", "999"], "align_dims is 999"),
        (["--alignment", "nowhere.npz"], "nowhere.npz: no such file"),
    ],
)
def test_mistakes_show_before_any_work(
    job: ImageJob, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert job.run(*options) == 2
    assert message in capsys.readouterr().err
    assert job.loaded == []
    assert not job.out.exists()


def test_an_engine_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "nowhere", *IMAGES, "-o", "job"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


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

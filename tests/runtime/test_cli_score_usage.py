"""Which options of `murank score` go together, and what shows before any work."""

import pytest
from engine_folder import edit_manifest
from image_job import ImageJob
from refusal import Refuse

IMAGES = ["--query", "q", "--gallery", "g"]
FEATURES = ["--features", "f.npz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--query"),
        ([*IMAGES, *FEATURES], "--query"),
        ([*IMAGES, "--dataset", "grid", "--root", "r"], "--query"),
        (["--query", "q"], "--query"),
        (["--gallery", "g"], "--query"),
        ([*FEATURES, "--gallery", "g"], "--gallery"),
        (["--dataset", "grid"], "--dataset"),
        ([*IMAGES, "--root", "r"], "--root"),
        ([*IMAGES, "--split", "0"], "--split"),
        ([*IMAGES, "--boxes", "labeled"], "--boxes"),
        ([*IMAGES, "--num-query", "3"], "--num-query"),
        ([*IMAGES, "--image-root", "r"], "--image-root"),
        ([*IMAGES, "--no-mu", "--candidates", "3"], "--candidates"),
        ([*IMAGES, "--no-mu", "--gallery-candidates", "3"], "--gallery-candidates"),
        ([*IMAGES, "--no-mu", "--order", "both"], "--order"),
        ([*IMAGES, "--no-mu", "--vision-cache-mb", "0"], "--vision-cache-mb"),
        ([*IMAGES, "--no-mu", "--cache-dir", "c"], "--cache-dir"),
        ([*FEATURES, "--no-mu"], "--features"),
        ([*IMAGES, "--cache-max-mb", "5"], "--cache-max-mb"),
        ([*IMAGES, "--cache-max-days", "5"], "--cache-max-days"),
        ([*IMAGES, "--cache-max-days", "nan"], "--cache-max-days"),
        ([*IMAGES, "--order", "all"], "--order"),
        ([*IMAGES, "--candidates", "0"], "--candidates"),
        ([*IMAGES, "--gallery-candidates", "0"], "--gallery-candidates"),
        ([*IMAGES, "--gallery-candidates", "few"], "--gallery-candidates"),
        ([*IMAGES, "--vision-cache-mb", "-1"], "--vision-cache-mb"),
        ([*IMAGES, "--providers", "gpu"], "--providers"),
        ([*IMAGES, "--providers", "cuda,cpu"], "--providers"),
        (["--dataset", "imagenet"], "--dataset"),
        ([*IMAGES, "--method", "simple"], "--method"),
    ],
)
def test_options_that_contradict_each_other(
    refuse: Refuse, options: list[str], message: str
) -> None:
    refuse("score", "e", *options, "-o", "job", names=message)


def test_a_place_is_needed(refuse: Refuse) -> None:
    refuse("score", "e", *IMAGES, names="-o/--output")


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
        (["--align-cameras", "mean", "--align-dims", "999"], "--align-dims is 999"),
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


def test_an_engine_that_is_not_there(refuse: Refuse) -> None:
    refuse("score", "nowhere", *IMAGES, "-o", "job", names="nowhere")


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

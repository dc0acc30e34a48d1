"""What a job will take, before it does."""

import json
import shutil
from collections import namedtuple
from typing import Any

import pytest
from image_job import NUM_GALLERY, NUM_IMAGES, NUM_QUERY, ImageJob

from murank.jobs import job_estimate as _estimate
from murank.jobs import needs as _needs

K = 3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_estimate, "_TRYING", 0.01)


def estimated(job: ImageJob, capsys: pytest.CaptureFixture[str], *options: object) -> Any:
    capsys.readouterr()
    assert job.run("-o", job.out, "--estimate", "--json", *options) == 0
    return json.loads(capsys.readouterr().out)


def test_nothing_is_known_of_a_new_job(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    found = estimated(job, capsys, "--candidates", K, "--order", "both")
    assert (found["num_query"], found["num_gallery"]) == (NUM_QUERY, NUM_GALLERY)
    assert (found["distinct_images"], found["images_known"]) == (NUM_IMAGES, 0)
    assert (found["pairs"], found["pairs_known"]) == (2 * K * NUM_QUERY, 0)
    assert found["seconds"].keys() == {"embed", "candidates", "mu"}
    for low, high in found["seconds"].values():
        assert 0 <= low <= high
    assert not job.out.exists()
    assert job.run("-o", job.out, "--estimate", "--candidates", K) == 0
    assert f"pairs: {K * NUM_QUERY}; known: 0 of" in capsys.readouterr().out


def test_what_a_job_holds_is_not_counted_again(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--candidates", K) == 0
    before = {path: path.read_bytes() for path in job.out.rglob("*") if path.is_file()}
    found = estimated(job, capsys, "--candidates", K + 2)
    assert found["images_known"] == NUM_IMAGES
    assert (found["pairs"], found["pairs_known"]) == ((K + 2) * NUM_QUERY, K * NUM_QUERY)
    assert found["seconds"]["embed"] == [0, 0]
    (job.gallery / "0001_c2s1_009.png").write_bytes(next(job.query.iterdir()).read_bytes())
    again = estimated(job, capsys, "--candidates", K, "--gallery-candidates", 2)
    assert (again["distinct_images"], again["images_known"]) == (NUM_IMAGES, NUM_IMAGES + 1)
    assert {path: path.read_bytes() for path in job.out.rglob("*") if path.is_file()} == before


def test_features_from_elsewhere(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.folder / "embedded", "--no-mu") == 0
    capsys.readouterr()
    source = ["--features", job.folder / "embedded" / "features.npz"]
    assert job.run("-o", job.out, "--estimate", "--json", "--candidates", K, source=source) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"].keys() == {"candidates", "mu"}
    assert not job.out.exists()


def test_no_image(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    lists = job.folder / "gone.csv"
    lists.write_text("path\ngone-1.png\ngone-2.png\n")
    source = ["--query", lists, "--gallery", lists]
    assert job.run("-o", job.out, "--estimate", source=source) == 2
    assert "no image can be read; the first: " in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["embed", "mu"])
def test_a_disk_without_room_is_refused_before_the_stage(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    usage = namedtuple("usage", "free")
    needed = _needs.features_bytes(NUM_IMAGES, NUM_IMAGES, 48)
    free = needed - 1 if stage == "embed" else needed
    monkeypatch.setattr(_needs, "mu_bytes", lambda *_numbers: needed + 1)
    monkeypatch.setattr("murank.jobs.score.mu_bytes", lambda *_numbers: needed + 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage(free))
    assert job.run("-o", job.out, "--candidates", K) == 2
    assert "make room" in capsys.readouterr().err
    assert job.done.get("embed", 0) == (0 if stage == "embed" else NUM_IMAGES)
    assert "given" not in job.done


def test_vision_tokens_of_all_images_are_kept_where_there_is_room(
    job: ImageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_needs, "available_bytes", lambda: 1 << 34)
    monkeypatch.setattr(_needs, "token_bytes", lambda _part: 100 << 20)
    for driver, options, wanted in (
        (False, [], NUM_IMAGES * 100),
        (True, [], 256),
        (True, ["--providers", "cpu"], NUM_IMAGES * 100),
        (False, ["--vision-cache-mb", 7], 7),
    ):
        monkeypatch.setattr(_needs, "has_driver", lambda found=driver: found)
        assert job.run("-o", job.folder / f"{driver}-{len(options)}-{wanted}", *options) == 0
        assert job.loaded[0]["vision_cache_mb"] == wanted
    monkeypatch.setattr(_needs, "available_bytes", lambda: 400 << 20)
    monkeypatch.setattr(_needs, "has_driver", lambda: False)
    assert job.run("-o", job.out) == 0
    assert job.loaded[0]["vision_cache_mb"] == 100, "a quarter of what is free"

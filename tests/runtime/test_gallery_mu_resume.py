"""Mu between gallery images: killed runs, reuse, and images that cannot be read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import NUM_GALLERY, NUM_QUERY, ImageJob
from numpy.typing import NDArray

from murank import load_mu

K, M = 3, 4
QUERY_PAIRS, GALLERY_PAIRS = K * NUM_QUERY, M * NUM_GALLERY
OPTIONS = ("--candidates", K, "--gallery-candidates", M)
FILES = {"features.npz", "mu.npz", "mu_gallery.npz", "job.json"}


def distances(job: ImageJob) -> NDArray[np.float32]:
    return job.ranking(method="k-reciprocal").distances


def skipped(job: ImageJob) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job.report()["skipped"]
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float32]]:
    """Results of whole runs, by order; what is ranked is the same in each job."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        job = ImageJob(tmp_path_factory.mktemp("whole"), patch)
        for order in ("given", "both"):
            assert job.run("-o", job.out, *OPTIONS, "--order", order, "--quiet", "--overwrite") == 0
            found[order] = distances(job)
    return found


@pytest.fixture
def source(job: ImageJob) -> list[object]:
    """Features, so that images that cannot be read stay in the gallery."""
    assert job.run("-o", job.folder / "embedded", "--no-mu") == 0
    return ["--features", job.folder / "embedded" / "features.npz"]


@pytest.mark.parametrize("order", ["given", "both"])
def test_killed_while_scoring_the_gallery(
    job: ImageJob,
    uninterrupted: dict[str, NDArray[np.float32]],
    capsys: pytest.CaptureFixture[str],
    order: str,
) -> None:
    options = ["-o", job.out, *OPTIONS, "--order", order]
    job.stop_at = ("given", QUERY_PAIRS + 6 * M - 1)  # a row a unit
    assert job.run(*options) == 130
    assert job.names() - {"mu_swapped.npz"} == {".murank-batch", "features.npz", "mu.npz"}
    job.stop_at = None
    assert job.run(*options) == 0
    halves = {"given", "swapped"} if order == "both" else {"given"}
    assert job.done == dict.fromkeys(halves, GALLERY_PAIRS - 5 * M)
    err = capsys.readouterr().err
    assert "mu.npz: reused\n" in err
    assert f"mu_gallery.npz: goes on, {5 * M} of {GALLERY_PAIRS} pairs known\n" in err
    np.testing.assert_array_equal(distances(job), uninterrupted[order])
    states = job.report()["stages"]
    assert (states["mu.npz"], states["mu_gallery.npz"]) == ("reused", "resumed")


def test_killed_while_its_file_is_put_into_place(
    job: ImageJob,
    uninterrupted: dict[str, NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replace = Path.replace

    def stop(path: Path, target: Path) -> Path:
        if target == job.out / "mu_gallery.npz":
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        assert job.run("-o", job.out, *OPTIONS) == 130
    assert job.names() == {".murank-batch", "features.npz", "mu.npz"}
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.done == {}
    assert job.names() == FILES
    np.testing.assert_array_equal(distances(job), uninterrupted["given"])


def test_a_finished_run_is_used_again(
    job: ImageJob, uninterrupted: dict[str, NDArray[np.float32]]
) -> None:
    assert job.run("-o", job.out, *OPTIONS[:2]) == 0
    assert job.run("-o", job.out, *OPTIONS, "--overwrite") == 0
    assert job.done == {"given": GALLERY_PAIRS}
    np.testing.assert_array_equal(distances(job), uninterrupted["given"])
    assert job.run("-o", job.out, *OPTIONS, "--overwrite") == 0
    assert (job.done, job.loaded) == ({}, [])
    assert job.run("-o", job.out, *OPTIONS[:2], "--overwrite") == 0
    assert job.done == {}
    assert job.names() == FILES  # mu of the same features stays


def test_another_number_is_another_job(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    job.stop_at = ("given", QUERY_PAIRS + 2 * M)
    assert job.run("-o", job.out, *OPTIONS) == 130
    job.stop_at = None
    capsys.readouterr()
    changed = ["-o", job.out, "--candidates", K]
    for options in (changed, [*changed, "--gallery-candidates", M + 1]):
        assert job.run(*options) == 2
        assert "another job (--gallery-candidates changed)" in capsys.readouterr().err
    assert job.run(*changed, "--gallery-candidates", M + 1, "--overwrite") == 0
    assert job.done == {"given": (M + 1) * NUM_GALLERY - 2 * M}


def test_mu_of_other_features_goes(job: ImageJob) -> None:
    assert job.run("-o", job.out, *OPTIONS) == 0
    sorted(job.gallery.iterdir())[0].unlink()
    assert job.run("-o", job.out, *OPTIONS[:2], "--overwrite") == 0
    assert job.names() == FILES - {"mu_gallery.npz"}


def test_a_file_of_others_in_its_place(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, *OPTIONS[:2]) == 0
    np.savez(job.out / "mu_gallery.npz", probs=np.zeros((1, 1)))
    assert job.run("-o", job.out, *OPTIONS, "--overwrite") == 2
    assert "mu_gallery.npz would be replaced" in capsys.readouterr().err


def test_pairs_that_cannot_be_read_keep_their_distance(
    job: ImageJob, source: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = job.folder / "whole"
    assert job.run("-o", whole, *OPTIONS, source=source) == 0
    bad = sorted(job.gallery.iterdir())[2]
    bad.write_bytes(b"no picture")
    assert job.run("-o", job.out, *OPTIONS, source=source) == 0
    before, after = load_mu(whole / "mu_gallery.npz"), load_mu(job.out / "mu_gallery.npz")
    np.testing.assert_array_equal(after.candidates, before.candidates)
    with_bad = before.candidates == 2
    with_bad[2] = True
    np.testing.assert_array_equal(after.mu[~with_bad], before.mu[~with_bad])
    rows = np.load(str(source[1]))["features"][NUM_QUERY:].astype(np.float64)
    gaps = np.linalg.norm(rows[:, None] - rows[after.candidates], axis=2)
    np.testing.assert_allclose(after.mu[with_bad], gaps[with_bad] / 2, atol=1e-6)
    query_pairs = int((load_mu(job.out / "mu.npz").candidates == 2).sum())
    assert query_pairs > 0
    pairs = query_pairs + int(with_bad.sum())  # of both stages
    assert [(one["path"], one["pairs"]) for one in skipped(job)] == [(str(bad), pairs)]
    assert job.done == {"given": QUERY_PAIRS + GALLERY_PAIRS - pairs}
    assert "1 image skipped (listed in job.json):\n" in capsys.readouterr().out


def test_a_missing_gallery_image_shows_before_any_scoring(
    job: ImageJob, source: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    candidates = job.folder / "candidates"
    assert job.run("-o", candidates, "--candidates", 1, source=source) == 0
    others = set(range(NUM_GALLERY)) - set(load_mu(candidates / "mu.npz").candidates.ravel())
    gone = sorted(job.gallery.iterdir())[min(others)]  # no query needs it
    gone.unlink()
    options = ["-o", job.out, "--strict", "--candidates", 1]
    assert job.run(*options, "--gallery-candidates", M, source=source) == 2
    assert f"{gone}: no such file" in capsys.readouterr().err
    assert job.done == {}
    assert job.run(*options, source=source) == 0

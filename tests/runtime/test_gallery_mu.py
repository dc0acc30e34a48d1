"""Mu between gallery images, from `murank score` or from a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import NUM_GALLERY, NUM_IMAGES, NUM_QUERY, FakeEngine, ImageJob
from numpy.typing import NDArray

from murank import FeatureSet, InputError, load_features, load_mu, load_ranking
from murank.cli import main
from murank.folder.manifest import read_manifest
from murank.images import ReadyImage, prepare
from murank.jobs import check_others
from murank.jobs.candidates import nearest_others
from murank_kernels import ca_jaccard, ecn, k_reciprocal

K, M = 3, 4
FILES = {"features.npz", "mu.npz", "mu_gallery.npz", "job.json"}
OPTIONS = ("--candidates", K, "--gallery-candidates", M)


def rerank(*options: object) -> int:
    return main(["rerank", *map(str, options)])


def dense(folder: Path) -> NDArray[np.float32]:
    """Distances [Q,G] of a ranking that kept all of them."""
    ranking = load_ranking(folder)
    order = np.argsort(ranking.indices, axis=1)
    found: NDArray[np.float32] = np.take_along_axis(ranking.distances, order, axis=1)
    return found


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def kernel_arguments(folder: Path, gallery_file: str = "mu_gallery.npz") -> dict[str, Any]:
    mu, gallery_mu = load_mu(folder / "mu.npz"), load_mu(folder / gallery_file)
    return {
        "mu": mu.mu, "candidates": mu.candidates,
        "gallery_mu": gallery_mu.mu, "gallery_candidates": gallery_mu.candidates,
    }  # fmt: skip


def test_a_stage_more(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.names() == FILES
    assert job.done == {"embed": NUM_IMAGES, "given": K * NUM_QUERY + M * NUM_GALLERY}
    features = load_features(job.out / "features.npz")
    assert job.rank("-o", job.out) == 0
    stored = job.arrays("mu_gallery.npz")
    assert stored["probs"].shape == stored["gallery_indices"].shape == (NUM_GALLERY, M)
    rows = features.gallery.features.astype(np.float64)
    gaps = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    wanted = np.argsort(gaps, axis=1, kind="stable")[:, :M]
    np.testing.assert_array_equal(stored["gallery_indices"], wanted)
    desired = k_reciprocal(
        features.features, NUM_QUERY, **kernel_arguments(job.out)
    )  # fmt: skip
    np.testing.assert_allclose(dense(job.out), np.asarray(desired), atol=5e-7, rtol=0)
    assert "k-reciprocal + mu + gallery mu" in capsys.readouterr().out


def test_each_row_is_asked_as_a_query(job: ImageJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def brightness(
        _engine: FakeEngine,
        queries: Sequence[ReadyImage],
        candidates: Sequence[Sequence[ReadyImage]],
        *,
        order: str,
    ) -> NDArray[np.float32]:
        assert order == "swapped"
        rows = [[image.pixels.mean() / 255] for image in queries]
        return np.array(rows, np.float32).repeat(len(candidates[0]), axis=1)

    monkeypatch.setattr(FakeEngine, "mu_many", brightness)
    assert job.run("-o", job.out, *OPTIONS, "--order", "swapped") == 0
    assert job.names() == FILES - {"mu.npz", "mu_gallery.npz"} | {
        "mu_swapped.npz", "mu_gallery_swapped.npz"
    }  # fmt: skip
    how = read_manifest(job.engine).scorer
    assert how is not None
    for name, folder in (("mu_gallery_swapped.npz", job.gallery), ("mu_swapped.npz", job.query)):
        images = [prepare(file, how.preprocessing) for file in sorted(folder.iterdir())]
        wanted = np.array([image.pixels.mean() / 255 for image in images])
        assert np.ptp(wanted) > 0.01
        mu = load_mu(job.out / name).mu
        np.testing.assert_allclose(mu, np.repeat(wanted[:, None], mu.shape[1], axis=1), atol=1e-6)


@pytest.mark.parametrize(("asked", "candidates"), [(1, 1), (1000, NUM_GALLERY - 1)])
def test_number_of_candidates(job: ImageJob, asked: int, candidates: int) -> None:
    assert job.run("-o", job.out, "--gallery-candidates", asked) == 0
    assert load_mu(job.out / "mu_gallery.npz").candidates.shape == (NUM_GALLERY, candidates)
    assert job.report()["gallery_candidates"] == candidates
    assert job.rank("-o", job.out) == 0
    assert summary_of(job.out)["counts"]["gallery_mu_candidates"] == candidates


def test_what_is_told(job: ImageJob) -> None:
    assert job.run("-o", job.out, *OPTIONS) == 0
    report = job.report()
    assert (report["candidates"], report["gallery_candidates"], report["order"]) == (K, M, "given")
    assert report["stages"]["mu_gallery.npz"] == "made"
    assert {"candidates", "mu", "gallery_candidates", "gallery_mu"} <= set(report["seconds"])
    assert job.rank("-o", job.out, "--alpha", 0.3) == 0
    summary = summary_of(job.out)
    assert summary["counts"]["mu_candidates"] == K
    assert summary["counts"]["gallery_mu_candidates"] == M
    assert summary["parameters"]["alpha"] == 0.3


def test_without_it_nothing_is_asked_of_the_gallery(job: ImageJob) -> None:
    assert job.run("-o", job.out, "--candidates", K) == 0
    assert job.names() == FILES - {"mu_gallery.npz"}
    assert job.done["given"] == K * NUM_QUERY
    report = job.report()
    assert report["gallery_candidates"] is None
    assert "gallery_mu" not in report["seconds"]


def test_a_method_that_takes_none_leaves_it_out(job: ImageJob) -> None:
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.rank("-o", job.out, method="simple") == 0
    counts = summary_of(job.out)["counts"]
    assert (counts["mu_candidates"], counts["gallery_mu_candidates"]) == (K, 0)


@pytest.mark.parametrize("method", ["k-reciprocal", "ecn", "ca-jaccard"])
def test_files_give_the_same_ranking_again(job: ImageJob, tmp_path: Path, method: str) -> None:
    assert job.run("-o", job.out, *OPTIONS, "--order", "both") == 0
    assert job.names() == FILES | {"mu_swapped.npz", "mu_gallery_swapped.npz"}
    assert job.done["swapped"] == K * NUM_QUERY + M * NUM_GALLERY
    assert job.rank("-o", job.out, method=method) == 0
    files = [
        job.out / "features.npz",
        "--mu", job.out / "mu.npz", "--mu-swapped", job.out / "mu_swapped.npz",
        "--gallery-mu", job.out / "mu_gallery.npz",
        "--gallery-mu-swapped", job.out / "mu_gallery_swapped.npz",
    ]  # fmt: skip
    again = tmp_path / "again"
    assert rerank(*files, "--method", method, "-o", again) == 0
    np.testing.assert_array_equal(dense(again), dense(job.out))
    one, other = summary_of(job.out), summary_of(again)
    assert one["metrics"] == other["metrics"]
    assert other["counts"]["gallery_mu_candidates"] == M
    assert other["inputs"]["gallery_mu"] == one["inputs"]["gallery_mu"]
    features = load_features(job.out / "features.npz")
    given = kernel_arguments(job.out)
    for key, name in (("mu", "mu_swapped.npz"), ("gallery_mu", "mu_gallery_swapped.npz")):
        given[key] = (given[key].astype(float) + load_mu(job.out / name).mu) / 2
    arguments = (features.features, NUM_QUERY)
    desired: Any = {
        "k-reciprocal": lambda: k_reciprocal(*arguments, **given),
        "ecn": lambda: ecn(*arguments, **given),
        "ca-jaccard": lambda: ca_jaccard(*arguments, np.asarray(features.camids), **given),
    }[method]()
    np.testing.assert_allclose(dense(again), desired, atol=5e-7, rtol=1e-6)
    assert rerank(*files[:5], "--method", method, "-o", tmp_path / "mu alone") == 0
    assert np.abs(dense(tmp_path / "mu alone") - dense(again)).max() > 1e-4


def test_a_file_without_mu_of_the_queries(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, *OPTIONS) == 0
    capsys.readouterr()
    files = [job.out / "features.npz", "--gallery-mu", job.out / "mu_gallery.npz"]
    options = ["--method", "k-reciprocal", "--alpha", 0.4, "-o", tmp_path / "again"]
    assert rerank(*files, *options) == 0
    out = capsys.readouterr().out
    assert "k-reciprocal + gallery mu" in out
    given = kernel_arguments(job.out)
    features = load_features(job.out / "features.npz").features
    desired = k_reciprocal(
        features, NUM_QUERY, alpha=0.4, gallery_mu=given["gallery_mu"],
        gallery_candidates=given["gallery_candidates"],
    )  # fmt: skip
    np.testing.assert_allclose(dense(tmp_path / "again"), np.asarray(desired), atol=5e-7, rtol=0)
    assert summary_of(tmp_path / "again")["parameters"]["alpha"] == 0.4


def test_one_from_a_file_the_other_from_the_job(job: ImageJob, tmp_path: Path) -> None:
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.rank("-o", job.out) == 0
    wanted, other = dense(job.out), tmp_path / "other"
    assert job.run("-o", other, "--candidates", K) == 0
    one = tmp_path / "one"
    assert job.rank("--gallery-mu", job.out / "mu_gallery.npz", "-o", one, job=other) == 0
    np.testing.assert_array_equal(dense(one), wanted)
    assert summary_of(one)["counts"]["gallery_mu_candidates"] == M


def test_progress_names_the_stage(job: ImageJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from murank.cli.progress import ProgressLine

    shown: list[str] = []
    monkeypatch.setattr(ProgressLine, "_show", lambda _self, stage: shown.append(stage.text()))
    assert job.run(*OPTIONS) == 0
    begins = {text.partition(",")[0] for text in shown}
    assert f"mu: {K * NUM_QUERY}/{K * NUM_QUERY} pairs" in begins
    assert f"gallery_mu: {M}/{M * NUM_GALLERY} pairs" in begins
    assert f"gallery_mu: {M * NUM_GALLERY}/{M * NUM_GALLERY} pairs" in begins


def features_of(gallery: NDArray[np.float32]) -> FeatureSet:
    rows = np.concatenate([np.ones((1, gallery.shape[1]), np.float32), gallery])
    return FeatureSet(rows, np.array([f"{i}" for i in range(len(rows))]), None, None, 1)


def test_nearest_others_leave_the_image_itself_out() -> None:
    gallery = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32) * 5
    distances, indices = nearest_others(features_of(gallery), 7)
    unit = (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).astype(np.float64)
    gaps = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    np.testing.assert_array_equal(indices, np.argsort(gaps, axis=1)[:, :7])
    np.testing.assert_allclose(distances, np.sort(gaps, axis=1)[:, :7], atol=1e-6)


def test_nearest_others_among_equal_images() -> None:
    distances, indices = nearest_others(features_of(np.ones((6, 3), np.float32)), 2)
    assert indices.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]
    assert not distances.any()


def test_one_gallery_image_has_no_others() -> None:
    check_others(2)
    for call in (
        lambda: check_others(1),
        lambda: nearest_others(features_of(np.ones((1, 2), np.float32)), 1),
    ):
        with pytest.raises(InputError, match="at least two of them; leave out --gallery"):
            call()

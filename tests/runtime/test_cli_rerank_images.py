import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import DIM, NUM_GALLERY, NUM_IMAGES, NUM_QUERY, ImageJob

from murank import load_features, load_mu, load_ranking
from murank.cli import main
from murank.folder.manifest import engine_sha256


def summary_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_two_folders_in_a_ranking_out(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--top-k-candidates", 3) == 0
    assert job.names() == {"features.npz", "mu.npz", "ranking.npz", "summary.json"}
    features = load_features(job.out / "features.npz")
    assert features.features.shape == (NUM_IMAGES, DIM)
    assert features.features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features.features, axis=1), 1, rtol=1e-6)
    assert features.num_query == NUM_QUERY
    assert features.paths[0] == str(job.query / "0001_c1s1_000.png")
    assert features.paths[NUM_QUERY] == str(job.gallery / "0001_c2s1_000.png")
    assert features.labels is not None
    mu = load_mu(job.out / "mu.npz")
    assert mu.mu.shape == mu.candidates.shape == (NUM_QUERY, 3)
    ranking = load_ranking(job.out)
    assert ranking.indices.shape == (NUM_QUERY, NUM_GALLERY)
    assert job.done == {"embed": NUM_IMAGES, "given": 3 * NUM_QUERY}
    out, _ = capsys.readouterr()
    assert f"{NUM_QUERY} queries, {NUM_GALLERY} gallery images" in out
    assert "k-reciprocal + mu" in out
    assert f"candidate matches a query: {job.out}" in out


def test_candidates_are_the_nearest_by_the_encoder(job: ImageJob) -> None:
    assert job.run("-o", job.out, "--top-k-candidates", 4) == 0
    features = load_features(job.out / "features.npz")
    query, gallery = features.query.features, features.gallery.features
    distances = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    wanted = np.argsort(distances, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(load_mu(job.out / "mu.npz").candidates, wanted)


def test_the_summary_tells_how_it_came_about(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--json", "--quiet", "--top-k-candidates", 3) == 0
    out, err = capsys.readouterr()
    assert err == ""
    summary = json.loads(out)
    assert summary == json.loads((job.out / "summary.json").read_text())
    assert summary["engine"] == {
        "folder": str(job.engine),
        "sha256": engine_sha256(job.engine),
        "precision": "fp16",
        "providers": {"encoder": ["Fake"], "vision": ["Fake"], "decoder": ["Fake"]},
    }
    assert (summary["top_k_candidates"], summary["order"]) == (3, "given")
    assert summary["skipped"] == []
    assert summary["stages"] == {"features.npz": "made", "mu.npz": "made"}
    assert set(summary["seconds"]) >= {"embed", "candidates", "mu", "rerank"}
    assert summary["inputs"] == {"query": str(job.query), "gallery": str(job.gallery)}
    assert summary["counts"]["mu_candidates"] == 3
    assert summary["metrics"]["after"]["mAP"] > 0


def test_what_is_written_gives_the_same_ranking_again(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--order", "both", "--top-k-candidates", 5) == 0
    again = tmp_path / "again"
    files = ["--features", job.out / "features.npz", "--mu", job.out / "mu.npz"]
    files += ["--mu-swapped", job.out / "mu_swapped.npz", "--method", "k-reciprocal"]
    assert main(["rerank", *map(str, files), "-o", str(again), "--json"]) == 0
    first, second = load_ranking(job.out), load_ranking(again)
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.distances, second.distances)
    np.testing.assert_array_equal(first.query_paths, second.query_paths)
    before = json.loads((job.out / "summary.json").read_text())
    assert before["metrics"] == json.loads((again / "summary.json").read_text())["metrics"]
    capsys.readouterr()


@pytest.mark.parametrize("order", ["given", "swapped", "both"])
def test_orders(job: ImageJob, capsys: pytest.CaptureFixture[str], order: str) -> None:
    assert job.run("-o", job.out, "--order", order, "--top-k-candidates", 2) == 0
    halves = {"given": "mu.npz", "swapped": "mu_swapped.npz"}
    wanted = {half for half in halves if order in (half, "both")}
    assert job.names() & set(halves.values()) == {halves[half] for half in wanted}
    pairs = 2 * NUM_QUERY
    assert job.done == {"embed": NUM_IMAGES, **dict.fromkeys(wanted, pairs)}
    capsys.readouterr()


def test_more_candidates_than_gallery_images(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("--top-k-candidates", 1000, "--json", "--method", "simple") == 0
    assert summary_of(capsys)["top_k_candidates"] == NUM_GALLERY


def test_without_output_nothing_is_written(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert job.run("--json") == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert summary_of(capsys)["stages"] == {"features.npz": "made", "mu.npz": "made"}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--no-mu"], ["encoder"]),
        (["--method", "none"], ["encoder"]),
        ([], ["encoder", "scorer"]),
    ],
)
def test_what_is_not_needed_is_not_loaded(
    job: ImageJob, capsys: pytest.CaptureFixture[str], options: list[str], parts: list[str]
) -> None:
    more = ["--threads", 2, "--providers", "cpu"]
    assert job.run("-o", job.out, *more, *options) == 0
    assert job.loaded == [{"parts": parts, "threads": 2, "providers": "cpu"}]
    assert ("mu.npz" in job.names()) == ("scorer" in parts)
    assert ("+ mu" in capsys.readouterr().out) == ("scorer" in parts)


def test_options_reach_the_engine(job: ImageJob, tmp_path: Path) -> None:
    names = "CUDAExecutionProvider, CPUExecutionProvider"
    cache = tmp_path / "cache"
    kept = ["--cache-dir", cache, "--cache-max-mb", 9, "--cache-max-days", 1.5]
    assert job.run("--vision-cache-mb", 0, *kept, "--providers", names, "--json") == 0
    (options,) = job.loaded
    assert options["providers"] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert (options["vision_cache_mb"], options["cache_dir"]) == (0, str(cache))
    assert (options["cache_max_mb"], options["cache_max_days"]) == (9, 1.5)


def test_lists_instead_of_folders(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (job.query, job.gallery):
        with (tmp_path / f"{folder.name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path"])
            writer.writerows([f"{folder.name}/{path.name}"] for path in sorted(folder.iterdir()))
    source = ["--query", tmp_path / "query.csv", "--gallery", tmp_path / "gallery.csv"]
    assert job.run("-o", job.out, source=source) == 0
    assert f"not evaluated: {tmp_path / 'query.csv'} has no column pid" in capsys.readouterr().out
    found = load_features(job.out / "features.npz")
    assert found.num_query == NUM_QUERY
    assert (found.pids, found.camids) == (None, None)
    assert load_ranking(job.out).labels is None


def test_one_odd_name_is_named(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    """It costs the labels of all; summary.json says so, too."""
    odd = job.gallery / "x.png"
    odd.write_bytes(next(job.query.iterdir()).read_bytes())
    assert job.run("-o", job.out, "--no-mu", "--json") == 0
    summary = summary_of(capsys)
    (note,) = summary["notes"]
    for text in (summary["not_evaluated"], note):
        assert str(odd) in text
        assert f"of {NUM_GALLERY + 1} names {NUM_GALLERY} begin PID_cCAM" in text
    assert json.loads((job.out / "summary.json").read_text())["notes"] == summary["notes"]


def test_a_data_set(job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job.gallery.rename(tmp_path / "bounding_box_test")
    source = ["--dataset", "market1501", "--root", tmp_path]
    assert job.run("--json", source=source) == 0
    summary = summary_of(capsys)
    assert summary["inputs"] == {"dataset": "market1501", "root": str(tmp_path)}
    assert summary["counts"]["num_gallery"] == NUM_GALLERY
    assert job.run("--split", 3, source=source) == 2
    assert "market1501 has no choice of split" in capsys.readouterr().err


def test_features_from_elsewhere(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--no-mu") == 0
    stored = job.arrays("features.npz")
    relative = [str(Path(path).relative_to(tmp_path)) for path in stored["paths"]]
    file, out = tmp_path / "mine.npz", tmp_path / "scored"
    np.savez(file, features=stored["features"] * 3, paths=np.array(relative))
    source = ["--features", file, "--image-root", tmp_path]
    assert job.run("-o", out, "--top-k-candidates", 3, source=source) == 0
    assert job.done == {"given": 3 * NUM_QUERY}
    assert job.loaded == [{"parts": ["scorer"]}]
    assert {path.name for path in out.iterdir()} == {"mu.npz", "ranking.npz", "summary.json"}
    capsys.readouterr()
    assert job.run("-o", tmp_path / "other", source=["--features", file]) == 2
    err = capsys.readouterr().err
    assert "no such file" in err
    assert "--image-root" in err
    assert job.done == {}


def test_mu_from_elsewhere(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--no-mu") == 0
    file = tmp_path / "mu.npz"
    candidates = np.tile(np.arange(2), (NUM_QUERY, 1))
    np.savez(file, probs=np.full((NUM_QUERY, 2), 0.25), gallery_indices=candidates)
    capsys.readouterr()
    assert job.run("--mu", file, "--alpha", 0.5, "--json", "--method", "simple") == 0
    summary = summary_of(capsys)
    assert summary["counts"]["mu_candidates"] == 2
    assert summary["parameters"]["alpha"] == 0.5
    assert summary["top_k_candidates"] is None
    assert job.loaded == [{"parts": ["encoder"]}]


def test_progress_names_the_stages(
    job: ImageJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from murank.cli import progress as _progress

    monkeypatch.setattr(_progress, "_EVERY_LOG", 0)
    assert job.run() == 0
    err = capsys.readouterr().err
    assert f"embed: images {NUM_IMAGES}/{NUM_IMAGES}\n" in err
    assert f"mu: queries {NUM_QUERY}/{NUM_QUERY}\n" in err
    assert job.run("--quiet") == 0
    assert capsys.readouterr().err == ""

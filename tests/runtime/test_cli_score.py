import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import DIM, NUM_GALLERY, NUM_IMAGES, NUM_QUERY, ImageJob

from murank import load_features, load_mu, load_ranking
from murank.cli import main
from murank.folder.manifest import engine_sha256, manifest_sha256, read_manifest


def summary_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_two_folders_in_a_job_out(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--candidates", 3) == 0
    assert job.names() == {"features.npz", "mu.npz", "job.json"}
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
    assert job.done == {"embed": NUM_IMAGES, "given": 3 * NUM_QUERY}
    out, _ = capsys.readouterr()
    assert f"{NUM_QUERY} queries, {NUM_GALLERY} gallery images" in out
    assert f"job: {job.out}" in out
    assert job.rank("-o", job.out) == 0
    assert load_ranking(job.out).indices.shape == (NUM_QUERY, NUM_GALLERY)
    out, _ = capsys.readouterr()
    assert "k-reciprocal + mu" in out
    assert f"candidate matches a query: {job.out}" in out


def test_candidates_are_the_nearest_by_the_encoder(job: ImageJob) -> None:
    assert job.run("-o", job.out, "--candidates", 4) == 0
    features = load_features(job.out / "features.npz")
    query, gallery = features.query.features, features.gallery.features
    distances = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    wanted = np.argsort(distances, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(load_mu(job.out / "mu.npz").candidates, wanted)


def test_job_json_tells_how_it_came_about(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--json", "--quiet", "--candidates", 3) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report == job.report()
    assert report["engine"] == {
        "folder": str(job.engine),
        "sha256": engine_sha256(job.engine),
        "answers_sha256": manifest_sha256(read_manifest(job.engine).answering),
        "precision": "fp16",
        "providers": {"encoder": ["Fake"], "vision": ["Fake"], "decoder": ["Fake"]},
    }
    assert (report["candidates"], report["order"]) == (3, "given")
    assert report["gallery_candidates"] is None
    assert report["skipped"] == []
    assert report["stages"] == {"features.npz": "made", "mu.npz": "made"}
    assert set(report["seconds"]) >= {"embed", "candidates", "mu"}
    assert report["inputs"] == {"query": str(job.query), "gallery": str(job.gallery)}
    assert report["counts"] == {
        "num_query": NUM_QUERY, "num_gallery": NUM_GALLERY, "byte_duplicates": 0
    }  # fmt: skip
    assert (report["images_embedded"], report["pairs_asked"]) == (NUM_IMAGES, 3 * NUM_QUERY)


def test_the_summary_says_what_was_used(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--order", "both", "--candidates", 3) == 0
    capsys.readouterr()
    assert job.rank("-o", job.folder / "r", "--json", "--candidates", 2) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((job.folder / "r" / "summary.json").read_text())
    halves = [str(job.out / name) for name in ("mu.npz", "mu_swapped.npz")]
    assert summary["inputs"] == {"source": str(job.out), "mu": halves, "gallery_mu": []}
    report = job.report()
    assert summary["job"]["engine"] == report["engine"]
    assert (summary["job"]["candidates"], summary["counts"]["mu_candidates"]) == (3, 2)
    assert summary["alignment"]["asked"] == "auto"
    assert summary["metrics"]["after"]["mAP"] > 0


@pytest.mark.parametrize("method", ["k-reciprocal", "ecn", "ca-jaccard", "simple", "none"])
def test_a_job_and_its_files_give_the_same_ranking(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    assert job.run("-o", job.out, "--order", "both", "--candidates", 5) == 0
    files = ["--mu", job.out / "mu.npz", "--mu-swapped", job.out / "mu_swapped.npz"]
    source, again = job.out / "features.npz", tmp_path / "again"
    words = ["rerank", source, "--method", method, *files * (method != "none"), "-o", again]
    assert main([str(word) for word in words]) == 0
    first, second = job.ranking(method=method), load_ranking(again)
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.distances, second.distances)
    np.testing.assert_array_equal(first.query_paths, second.query_paths)
    metrics = [
        json.loads((folder / "summary.json").read_text())["metrics"]
        for folder in (again, job.folder / "ranked")
    ]
    assert metrics[0] == metrics[1]
    capsys.readouterr()


@pytest.mark.parametrize("order", ["given", "swapped", "both"])
def test_orders(job: ImageJob, capsys: pytest.CaptureFixture[str], order: str) -> None:
    assert job.run("-o", job.out, "--order", order, "--candidates", 2) == 0
    halves = {"given": "mu.npz", "swapped": "mu_swapped.npz"}
    wanted = {half for half in halves if order in (half, "both")}
    assert job.names() & set(halves.values()) == {halves[half] for half in wanted}
    pairs = 2 * NUM_QUERY
    assert job.done == {"embed": NUM_IMAGES, **dict.fromkeys(wanted, pairs)}
    capsys.readouterr()


def test_more_candidates_than_gallery_images(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("--candidates", 1000, "--json") == 0
    assert summary_of(capsys)["candidates"] == NUM_GALLERY


@pytest.mark.parametrize(
    ("options", "parts"), [(["--no-mu"], ["encoder"]), ([], ["encoder", "scorer"])]
)
def test_what_is_not_needed_is_not_loaded(
    job: ImageJob, capsys: pytest.CaptureFixture[str], options: list[str], parts: list[str]
) -> None:
    more = ["--threads", 2, "--providers", "cpu"]
    assert job.run("-o", job.out, *more, *options) == 0
    (loaded,) = job.loaded
    loaded.pop("vision_cache_mb", None)
    assert loaded == {"parts": parts, "threads": 2, "providers": "cpu"}
    assert ("mu.npz" in job.names()) == ("scorer" in parts)
    assert job.rank() == 0
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
    capsys.readouterr()
    assert job.rank() == 0
    assert f"not evaluated: {tmp_path / 'query.csv'} has no column pid" in capsys.readouterr().out
    found = load_features(job.out / "features.npz")
    assert found.num_query == NUM_QUERY
    assert (found.pids, found.camids) == (None, None)
    assert job.ranking().labels is None


def test_one_odd_name_is_named(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    """It costs the labels of all; who ranks is told why, too."""
    odd = job.gallery / "x.png"
    odd.write_bytes(min(job.gallery.iterdir()).read_bytes())
    assert job.run("-o", job.out, "--no-mu", "--json") == 0
    (note,) = summary_of(capsys)["notes"]
    assert job.report()["notes"] == [note]
    assert job.rank("--json") == 0
    for text in (summary_of(capsys)["not_evaluated"], note):
        assert str(odd) in text
        assert f"of {NUM_GALLERY + 1} names {NUM_GALLERY} begin PID_cCAM" in text


def test_a_data_set(job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job.gallery.rename(tmp_path / "bounding_box_test")
    source = ["--dataset", "market1501", "--root", tmp_path]
    assert job.run("--json", source=source) == 0
    summary = summary_of(capsys)
    assert summary["inputs"] == {"dataset": "market1501", "root": str(tmp_path)}
    assert summary["counts"]["num_gallery"] == NUM_GALLERY
    assert job.run("-o", job.folder / "x", "--split", 3, source=source) == 2
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
    assert job.run("-o", out, "--candidates", 3, source=source) == 0
    assert job.done == {"given": 3 * NUM_QUERY}
    assert job.loaded == [{"parts": ["scorer"], "vision_cache_mb": 1}]
    files = {"features.npz", "mu.npz", "job.json", "journal"}
    assert {path.name for path in out.iterdir()} == files
    np.testing.assert_array_equal(
        load_features(out / "features.npz").features, 3 * stored["features"]
    )
    assert json.loads((out / "job.json").read_text())["image_root"] == str(tmp_path)
    assert job.rank("--sheet", tmp_path / "s.png", job=out) == 0, "it knows where images are"
    capsys.readouterr()
    assert job.run("-o", tmp_path / "other", source=["--features", file]) == 2
    err = capsys.readouterr().err
    assert "no such file" in err
    assert "--image-root" in err
    assert job.done == {}
    assert not (tmp_path / "other").exists()


def test_mu_from_elsewhere(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out, "--candidates", 3) == 0
    file = tmp_path / "mu.npz"
    candidates = np.tile(np.arange(2), (NUM_QUERY, 1))
    np.savez(file, probs=np.full((NUM_QUERY, 2), 0.25), gallery_indices=candidates)
    capsys.readouterr()
    assert job.rank("--mu", file, "--alpha", 0.5, "--json", method="simple") == 0
    summary = summary_of(capsys)
    assert summary["counts"]["mu_candidates"] == 2
    assert summary["parameters"]["alpha"] == 0.5
    assert summary["inputs"]["mu"] == [str(file)]


@pytest.mark.parametrize("how", ["no job.json", "unfinished", "empty", "no such stage", "a list"])
def test_what_is_no_finished_job(
    job: ImageJob, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    if how == "unfinished":
        job.stop_at = ("given", 2)
    assert job.run("-o", job.out, "--candidates", 2) == (130 if how == "unfinished" else 0)
    if how == "no job.json":
        (job.out / "job.json").unlink()
    if how in ("empty", "a list"):
        (job.out / "job.json").write_text("" if how == "empty" else "[]")
    if how == "no such stage":
        (job.out / "mu.npz").unlink()
    capsys.readouterr()
    for verb in (["rerank", job.out, "--method", "ecn"], ["evaluate", job.out]):
        assert main(list(map(str, verb))) == 2
        err = capsys.readouterr().err
        assert str(job.out) in err
        assert err.count("\n") == 1


def test_progress_names_the_stages(
    job: ImageJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from murank.cli import progress as _progress

    monkeypatch.setattr(_progress, "_EVERY_LOG", 0)
    assert job.run() == 0
    err = capsys.readouterr().err
    assert f"embed: {NUM_IMAGES}/{NUM_IMAGES} images" in err
    assert f"mu: {10 * NUM_QUERY}/{10 * NUM_QUERY} pairs" in err
    assert job.run("--quiet", "--overwrite") == 0
    assert capsys.readouterr().err == ""

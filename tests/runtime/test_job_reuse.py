import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folder import edit_manifest
from image_job import NUM_IMAGES, NUM_QUERY, ImageJob, change_crop

from murank import load_features, load_mu

K = 3
PAIRS = K * NUM_QUERY
OPTIONS = ("--candidates", K, "--overwrite")
EVERYTHING = {"embed": NUM_IMAGES, "given": PAIRS}


@pytest.fixture
def finished(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> ImageJob:
    assert job.run("-o", job.out, "--candidates", K) == 0
    capsys.readouterr()
    return job


def asked_pairs(job: ImageJob) -> set[tuple[bytes, bytes]]:
    """The pairs of contents whose mu the job holds."""
    features, mu = load_features(job.out / "features.npz"), load_mu(job.out / "mu.npz")
    return {
        (Path(query).read_bytes(), Path(features.gallery.paths[one]).read_bytes())
        for query, row in zip(features.query.paths, mu.candidates, strict=True)
        for one in row
    }


def replaced(job: ImageJob, *options: object) -> dict[str, int]:
    """What the engine did in a run that may overwrite."""
    assert job.run("-o", job.out, *OPTIONS, *options) == 0
    return dict(job.done)


def test_a_finished_folder_is_refused(
    finished: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    before = finished.content()
    assert finished.run("-o", finished.out, "--candidates", K) == 2
    assert "holds a finished job; pass --overwrite" in capsys.readouterr().err
    assert finished.content() == before
    assert finished.loaded == []


def test_the_same_again_costs_no_call_of_the_engine(
    finished: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replaced(finished) == {}
    assert finished.loaded == []
    assert "features.npz: reused\nmu.npz: reused\n" in capsys.readouterr().err
    assert finished.names() == {"features.npz", "mu.npz", "job.json"}
    report = finished.report()
    assert report["stages"] == {"features.npz": "reused", "mu.npz": "reused"}
    assert report["engine"]["providers"]["decoder"] == ["Fake"]


def test_a_ranking_goes_with_what_it_was_made_from(finished: ImageJob) -> None:
    assert finished.rank("-o", finished.out) == 0
    assert replaced(finished) == {}
    ranked = {"ranking.npz", "summary.json"}
    assert finished.names() >= ranked, "nothing is made anew"
    assert replaced(finished, "--order", "swapped") == {"swapped": PAIRS}
    assert not finished.names() & ranked


def test_quiet_says_nothing(finished: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert replaced(finished, "--quiet") == {}
    assert capsys.readouterr().err == ""


def test_another_k_asks_what_is_new(finished: ImageJob) -> None:
    assert finished.run("-o", finished.out, "--overwrite", "--candidates", K + 2) == 0
    assert finished.done == {"given": 2 * NUM_QUERY}
    assert finished.run("-o", finished.out, "--overwrite", "--candidates", 2) == 0
    assert finished.done == {}
    assert load_mu(finished.out / "mu.npz").mu.shape[1] == 2


def test_another_order_adds_what_is_missing(finished: ImageJob) -> None:
    assert replaced(finished, "--order", "both") == {"swapped": PAIRS}
    assert replaced(finished, "--order", "swapped") == {}
    assert replaced(finished) == {}
    assert finished.names() >= {"mu.npz", "mu_swapped.npz"}


def test_mu_outlives_a_run_without(finished: ImageJob) -> None:
    assert finished.run("-o", finished.out, "--overwrite", "--no-mu") == 0
    assert finished.done == {}
    assert replaced(finished) == {}


def test_another_engine_makes_everything_anew(finished: ImageJob) -> None:
    edit_manifest(finished.engine, lambda data: data.update(murank_version="0.0.1"))
    assert replaced(finished) == EVERYTHING


@pytest.mark.parametrize("how", ["content", "time", "added", "removed", "moved"])
def test_another_image_costs_what_is_new(finished: ImageJob, how: str) -> None:
    first = sorted(finished.gallery.iterdir())[0]
    asked = asked_pairs(finished)
    more = embedded = 0
    if how == "content":
        change_crop(first)
        embedded = 1
    elif how == "time":
        os.utime(first, (1_000_000_001, 1_000_000_001))
    elif how == "added":
        (finished.gallery / "0000_c1s1_000.png").write_bytes(first.read_bytes())
        more = 1
    elif how == "removed":
        first.unlink()
        more = -1
    else:
        finished.gallery = finished.gallery.rename(finished.folder / "elsewhere")
    done = replaced(finished)
    assert done.get("embed", 0) == embedded
    assert done.get("given", 0) == len(asked_pairs(finished) - asked)
    assert len(load_features(finished.out / "features.npz").paths) == NUM_IMAGES + more


def test_an_image_that_is_no_candidate_leaves_mu_alone(finished: ImageJob) -> None:
    candidates = load_mu(finished.out / "mu.npz").candidates
    paths = load_features(finished.out / "features.npz").gallery.paths
    (other, *_) = set(range(len(paths))) - set(candidates.ravel().tolist())
    os.utime(paths[other], (1_000_000_001, 1_000_000_001))
    assert replaced(finished) == {}
    change_crop(Path(paths[other]))
    assert replaced(finished)["embed"] == 1
    assert replaced(finished) == {}


def test_mu_of_other_features_does_not_stay_beside_them(finished: ImageJob) -> None:
    change_crop(sorted(finished.gallery.iterdir())[0])
    assert finished.run("-o", finished.out, "--overwrite", "--no-mu") == 0
    assert finished.names() == {"features.npz", "job.json"}


def test_other_labels_cost_no_call_of_the_engine(job: ImageJob, tmp_path: Path) -> None:
    lists = []
    for folder in (job.query, job.gallery):
        lists.append(tmp_path / f"{folder.name}.csv")
        rows = [f"{path},{i},{i % 2}" for i, path in enumerate(sorted(folder.iterdir()))]
        lists[-1].write_text("\n".join(["path,pid,camid", *rows]))
    source = ["--query", lists[0], "--gallery", lists[1]]
    assert job.run("-o", job.out, *OPTIONS, source=source) == 0
    lists[0].write_text(lists[0].read_text().replace(",0,0\n", ",77,0\n"))
    assert job.run("-o", job.out, *OPTIONS, source=source) == 0
    assert job.done == {}
    pids = load_features(job.out / "features.npz").pids
    assert pids is not None
    assert pids[0] == 77
    assert job.run("-o", job.out, *OPTIONS, source=source) == 0


def test_killed_while_overwriting_it_resumes_by_itself(finished: ImageJob) -> None:
    for place in range(4):
        change_crop(sorted(finished.gallery.iterdir())[place], seed=place)
    finished.stop_at = ("embed", 3)
    assert finished.run("-o", finished.out, *OPTIONS) == 130
    assert "job.json" not in finished.names()
    finished.stop_at = None
    assert finished.run("-o", finished.out, "--candidates", K) == 0
    assert finished.done["embed"] == 2


def test_a_mistake_leaves_the_old_run_alone(finished: ImageJob) -> None:
    change_crop(sorted(finished.gallery.iterdir())[0])
    before = finished.content()
    assert (
        finished.run("-o", finished.out, *OPTIONS, "--align-cameras", "off", "--align-dims", 9) == 2
    )
    assert finished.loaded == []
    assert finished.content() == before


@pytest.mark.parametrize("name", ["features.npz", "mu.npz"])
@pytest.mark.parametrize("how", ["edited", "truncated", "of others"])
def test_a_stage_that_is_not_ours_is_neither_used_nor_replaced(
    finished: ImageJob, capsys: pytest.CaptureFixture[str], name: str, how: str
) -> None:
    file = finished.out / name
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        arrays: dict[str, Any] = finished.arrays(name)
        key = "features" if name == "features.npz" else "probs"
        arrays[key] = arrays[key][:, ::-1]
        if how == "of others":
            del arrays["stage"]
        np.savez(file, **arrays)
    before = file.read_bytes()
    assert finished.run("-o", finished.out, *OPTIONS) == 2
    assert f"{file} would be replaced" in capsys.readouterr().err
    assert file.read_bytes() == before
    file.unlink()
    assert replaced(finished) == {}, "the journal has it all"


def test_files_of_others_stay(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    job.out.mkdir()
    (job.out / "mine.txt").write_text("mine")
    assert job.run("-o", job.out) == 2
    assert "is not empty; pass --overwrite" in capsys.readouterr().err
    assert job.run("-o", job.out, "--overwrite") == 0
    assert (job.out / "mine.txt").read_text() == "mine"


def test_files_are_their_owners_alone(finished: ImageJob) -> None:
    for path in finished.out.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert finished.out.stat().st_mode & 0o777 == 0o700


def test_features_that_are_read_are_never_replaced(
    finished: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    features = finished.out / "features.npz"
    before = finished.content()
    assert finished.run("-o", finished.out, *OPTIONS, source=["--features", features]) == 2
    assert str(features) in capsys.readouterr().err
    assert finished.content() == before
    other = finished.folder / "other.npz"
    other.write_bytes(features.read_bytes())
    for _ in range(2):
        assert finished.run("-o", finished.out, *OPTIONS, source=["--features", other]) == 0
        assert finished.done == {}
    assert finished.report()["stages"] == {"features.npz": "reused", "mu.npz": "reused"}


def test_mu_is_of_the_images_whatever_the_features(finished: ImageJob, tmp_path: Path) -> None:
    file, out = tmp_path / "f.npz", tmp_path / "scored"
    file.write_bytes((finished.out / "features.npz").read_bytes())
    options = ["-o", out, *OPTIONS]
    assert finished.run(*options, source=["--features", file]) == 0
    assert finished.run(*options, source=["--features", file]) == 0
    assert finished.done == {}
    arrays: dict[str, Any] = finished.arrays("features.npz")
    np.savez(file, **{**arrays, "features": 2 * arrays["features"]})
    assert finished.run(*options, source=["--features", file]) == 0
    assert finished.done == {}
    assert json.loads((out / "job.json").read_text())["stages"]["features.npz"] == "given"


def test_a_ranking_in_the_job_folder(
    finished: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    before = finished.content()
    (finished.out / "mine.txt").write_text("mine")
    assert finished.rank("-o", finished.out, method="simple") == 0
    first = (finished.out / "ranking.npz").read_bytes()
    capsys.readouterr()
    assert finished.rank("-o", finished.out, method="none") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (finished.out / "ranking.npz").read_bytes() == first
    assert finished.rank("-o", finished.out, "--overwrite", "--format", "jsonl") == 0
    kept = finished.content()
    assert kept.keys() == {*before, "mine.txt", "ranking.jsonl", "summary.json"}
    assert {name: kept[name] for name in before} == before
    assert replaced(finished) == {}

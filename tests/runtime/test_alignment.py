"""Camera alignment in the verbs: what is asked for, what is done, and what is told."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import ImageJob
from made_features import make_features

import murank_kernels as kernels
from murank import FeatureSet, InputError, load_features, load_mu, save_features
from murank.cli import main
from murank.rerank.alignment import Alignment, align, fit_gallery


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return make_features(num_ids=90, num_cameras=3, num_distractors=60, dim=160, camera_shift=1.5)


@pytest.fixture
def file(features: FeatureSet, tmp_path: Path) -> Path:
    save_features(tmp_path / "f.npz", features)
    return tmp_path / "f.npz"


def direct(features: FeatureSet, **settings: Any) -> Any:
    return kernels.align_cameras(
        features.features, np.asarray(features.camids), num_query=features.num_query, **settings
    )


def test_auto_is_pairs_on_a_quarter_and_at_least_128_directions(features: FeatureSet) -> None:
    found = align(features, Alignment())
    assert (found.level, found.note) == ("pairs", None)
    np.testing.assert_array_equal(found.features.features, direct(features, dims=128))
    wide = replace(features, features=np.tile(features.features, 4))
    assert align(wide, Alignment()).features.features.shape[1] == 160
    narrow = replace(features, features=features.features[:, :100])
    assert align(narrow, Alignment()).features.features.shape[1] == 100


@pytest.mark.parametrize("level", ["pairs", "mean"])
def test_levels_and_directions(features: FeatureSet, level: Any) -> None:
    for dims, given in (("all", None), (7, 7)):
        found = align(features, Alignment(level, dims))  # type: ignore[arg-type]
        np.testing.assert_array_equal(
            found.features.features, direct(features, level=level, dims=given)
        )
        assert found.level == level
    everything = align(features, Alignment("mean"))
    np.testing.assert_array_equal(everything.features.features, direct(features, level="mean"))


def test_pids_are_not_looked_at(features: FeatureSet) -> None:
    blind = align(replace(features, pids=None), Alignment())
    np.testing.assert_array_equal(
        blind.features.features, align(features, Alignment()).features.features
    )


def test_off_changes_nothing(features: FeatureSet) -> None:
    assert align(features, Alignment("off")).features is features


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: replace(f, camids=None), "no camids"),
        (lambda f: replace(f, camids=f.camids - 9), "50 gallery images"),
        (lambda f: replace(f, camids=np.where(f.camids == 1, 1, -1)), "50 gallery images"),
        (lambda f: replace(f, camids=np.zeros_like(f.camids)), "50 gallery images"),
        (lambda f: replace(f, camids=np.arange(len(f.paths)) // 40), "50 gallery images"),
    ],
)
def test_auto_does_nothing_and_says_why(features: FeatureSet, change: Any, why: str) -> None:
    unfit = change(features)
    found = align(unfit, Alignment())
    assert found.features is unfit
    assert (found.level, why in str(found.note)) == ("off", True)


def test_a_query_of_an_unknown_camera(features: FeatureSet) -> None:
    """A camid below 0 among the queries: the common mean, and a note."""
    camids = np.asarray(features.camids).copy()
    camids[:2] = -1
    found = align(replace(features, camids=camids), Alignment("mean"))
    known = align(features, Alignment("mean"))
    np.testing.assert_array_equal(found.features.features[2:], known.features.features[2:])
    fitted = kernels.CameraAlignment.fit(
        features.gallery.features, np.asarray(features.gallery.camids), level="mean"
    )
    expected = fitted.apply(features.features[:2])
    np.testing.assert_array_equal(found.features.features[:2], expected)
    assert "unknown cameras (camid below 0): 2;" in str(found.note)


@pytest.mark.parametrize("level", ["auto", "pairs", "mean"])
def test_gallery_images_of_unknown_cameras(features: FeatureSet, level: Any) -> None:
    """They take no part in the fit, and do not keep the others from being aligned."""
    camids = np.asarray(features.camids).copy()
    camids[0], camids[-3:] = -4, (-1, -1, -2)
    some = replace(features, camids=camids)
    found = align(some, Alignment(level, "all"))
    known = camids[features.num_query :] >= 0
    fitted = kernels.CameraAlignment.fit(
        features.gallery.features[known], camids[features.num_query :][known],
        level="pairs" if level == "auto" else level,
    )  # fmt: skip
    expected = fitted.apply(features.features, np.where(camids < 0, 999, camids))
    np.testing.assert_allclose(found.features.features, expected, rtol=0, atol=1e-5)
    assert "unknown cameras (camid below 0): 4;" in str(found.note)
    assert "unknown cameras (camid below 0): 3;" in str(fit_gallery(some, Alignment(level)).note)


def test_too_few_pairs_are_told(features: FeatureSet) -> None:
    few = replace(features, camids=(np.arange(len(features.paths)) % 97 > 0).astype(int))
    found = align(few, Alignment("pairs"))
    assert found.level == "mean"
    assert "pairs" in str(found.note)
    assert found.features.features.shape[1] == 160, "means alone want all directions"


@pytest.mark.parametrize("level", ["pairs", "mean"])
def test_what_was_asked_for_needs_camids(features: FeatureSet, level: Any) -> None:
    with pytest.raises(InputError, match="camids"):
        align(replace(features, camids=None), Alignment(level))
    with pytest.raises(InputError, match="camids"):
        align(replace(features, camids=np.asarray(features.camids) - 4), Alignment(level))
    with pytest.raises(InputError, match="dims"):
        align(features, Alignment(level, 161))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def metrics(features: FeatureSet, rows: Any, **options: Any) -> dict[str, Any]:
    assert features.labels is not None
    distances = kernels.k_reciprocal(rows, features.num_query, **options) if options else (
        kernels.simple(rows, features.num_query)
    )  # fmt: skip
    found = kernels.evaluate_rank(np.asarray(distances), *features.labels.as_arguments())
    return {"mAP": pytest.approx(found.mAP), "rank-1": pytest.approx(found.cmc[0])}


def test_rerank(features: FeatureSet, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "rerank", file, "--method", "k-reciprocal", "--k1", 8)
    rows = direct(features, dims=128)
    shown = {
        name: {k: one[k] for k in ("mAP", "rank-1")}
        for name, one in found["metrics"].items()
        if one
    }
    assert shown == {
        "before": metrics(features, features.features),
        "aligned": metrics(features, rows),
        "after": metrics(features, rows, k1=8),
    }
    assert found["alignment"] == {
        "asked": "auto", "file": None, "level": "pairs", "dims": 128, "note": None
    }  # fmt: skip
    plain = run(capsys, "rerank", file, "--method", "k-reciprocal", "--k1", 8,
                "--align-cameras", "off")  # fmt: skip
    assert plain["metrics"]["aligned"] is None
    assert plain["metrics"]["after"]["mAP"] == metrics(features, features.features, k1=8)["mAP"]


def test_rerank_by_the_encoder_alone(
    features: FeatureSet, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(capsys, "rerank", file, "--method", "none")["metrics"]
    assert found["before"]["mAP"] == metrics(features, features.features)["mAP"]
    assert found["after"] == found["aligned"] != found["before"]


@pytest.mark.parametrize("verb", ["rerank", "evaluate", "re-rankers"])
def test_tables_show_both(file: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    options: dict[str, list[object]] = {
        "rerank": ["rerank", file, "--method", "ecn"],
        "evaluate": ["evaluate", file],
        "re-rankers": ["evaluate", file, "--rerankers"],
    }
    assert main([*map(str, options[verb])]) == 0
    text = capsys.readouterr().out
    lines = [line.split("  ")[0] for line in text.splitlines()]
    first = lines.index("euclidean" if verb == "evaluate" else "encoder")
    assert lines[first + 1] == "aligned (pairs, 128)"
    assert "unlabelled gallery" in text
    assert main([*map(str, options[verb]), "--align-cameras", "off"]) == 0
    assert "aligned" not in capsys.readouterr().out


def test_evaluate(features: FeatureSet, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "evaluate", file)
    assert found["metrics"]["mAP"] == metrics(features, features.features)["mAP"]
    aligned = found["aligned"]["metrics"]
    assert aligned["mAP"] == metrics(features, direct(features, dims=128))["mAP"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("rerank", "F", "--method", "ecn", "--align-cameras", "off",
         "--align-dims", "9"),
        ("evaluate", "F", "--align-dims", "0"),
        ("evaluate", "F", "--rerankers", "--align-cameras", "best"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used(
    file: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file) if part == "F" else part for part in arguments]) == 2
    assert "--align-" in capsys.readouterr().err


def test_only_features_are_aligned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = np.arange(3)
    np.savez(tmp_path / "d.npz", distmat=np.ones((3, 3)), q_pids=ids, g_pids=ids,
             q_camids=ids, g_camids=ids + 1)  # fmt: skip
    assert main(["evaluate", str(tmp_path / "d.npz"), "--align-cameras", "mean"]) == 2
    assert "--align-cameras" in capsys.readouterr().err


def with_cameras(job: ImageJob) -> list[object]:
    """The job's images as lists with camids, whatever they are."""
    source: list[object] = []
    for flag, folder in (("--query", job.query), ("--gallery", job.gallery)):
        names = sorted(path.name for path in folder.iterdir())
        rows = [f"{folder / name},{i},{i % 2}" for i, name in enumerate(names)]
        file = job.folder / f"{folder.name}.csv"
        file.write_text("\n".join(["path,pid,camid", *rows]) + "\n")
        source += [flag, file]
    return source


def test_candidates_are_chosen_on_aligned_features(job: ImageJob) -> None:
    options = ("-o", job.out, "--candidates", 3)
    source = with_cameras(job)
    assert job.run(*options, "--align-cameras", "mean", source=source) == 0
    features, mu = load_features(job.out / "features.npz"), load_mu(job.out / "mu.npz")
    aligned = direct(features, level="mean")
    expected = kernels.simple(aligned, features.num_query, top_k=3)[1]
    np.testing.assert_array_equal(mu.candidates, expected)
    plain = kernels.simple(features.features, features.num_query, top_k=3)[1]
    assert not np.array_equal(plain, expected), "the test would see no difference"
    assert job.report()["alignment"]["level"] == "mean"


def test_an_unfinished_job_of_another_alignment(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    source, options = with_cameras(job), ("-o", job.out, "--candidates", 3)
    job.stop_at = ("given", 4)
    assert job.run(*options, "--align-cameras", "mean", source=source) == 130
    job.stop_at = None
    assert job.run(*options, source=source) == 2
    assert "--align-cameras" in capsys.readouterr().err
    assert job.run(*options, "--align-cameras", "mean", source=source) == 0


def test_a_job_is_ranked_as_its_candidates_were_chosen(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    given = job.folder / "a.npz"
    assert job.run("--no-mu") == 0
    assert main(["align", str(job.out), "-o", str(given), "--align-cameras", "mean"]) == 0
    fitted = ("--align-cameras", "mean", "--align-dims", 9)
    for options, asked in ((fitted, "mean"), (("--alignment", given), "given")):
        assert job.run("--overwrite", *options) == 0
        capsys.readouterr()
        found = run(capsys, "rerank", job.out, "--method", "simple")
        assert (found["alignment"]["asked"], found["alignment"]["level"]) == (asked, "mean")
        words = ("rerank", job.out / "features.npz", "--method", "simple", "--mu")
        named = run(capsys, *words, job.out / "mu.npz", *options)
        assert found["metrics"] == named["metrics"]
        assert run(capsys, "evaluate", job.out)["alignment"]["asked"] == asked
        off = run(capsys, "rerank", job.out, "--method", "simple", "--align-cameras", "off")
        assert (off["alignment"]["asked"], off["metrics"]["aligned"]) == ("off", None)
    assert main(["align", str(job.out), "-o", str(given), "--align-dims", "5", "--overwrite",
                 "--align-cameras", "mean"]) == 0  # fmt: skip
    capsys.readouterr()
    assert job.rank() == 2
    assert str(given) in capsys.readouterr().err
    assert job.rank("--alignment", given) == 0

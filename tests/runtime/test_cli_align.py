"""`murank align`: what it learns and writes, what the MLLM has to say, and who uses the file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import DIM, FakeEngine, ImageJob
from made_features import make_features
from search_parts import make_engine, make_images

from murank import FeatureSet, InputError, Searcher, load_features, save_features
from murank.cli import main
from murank.images import prepare
from murank.rerank.alignment import load_alignment, save_alignment
from murank_kernels import CameraAlignment

WORDS = {
    "rerank": ["rerank", "--method", "none"],
    "evaluate": ["evaluate"],
    "re-rankers": ["evaluate", "--rerankers"],
}
SHA = "ab" * 32


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    found = make_features(num_ids=40, num_cameras=3, num_distractors=20, dim=16, camera_shift=1.5)
    return replace(found, encoder_sha256=SHA)


@pytest.fixture
def file(features: FeatureSet, tmp_path: Path) -> Path:
    save_features(tmp_path / "f.npz", features)
    return tmp_path / "f.npz"


def direct(features: FeatureSet, **options: Any) -> CameraAlignment:
    gallery = features.gallery
    return CameraAlignment.fit(gallery.features, np.asarray(gallery.camids), **options)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_written(
    features: FeatureSet, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "a.npz"
    found = run(capsys, "align", file, "-o", out)
    expected = direct(features)
    camids = np.asarray(features.camids)
    loaded = CameraAlignment.load(out, encoder_sha256=SHA)
    np.testing.assert_array_equal(
        loaded.apply(features.features, camids), expected.apply(features.features, camids)
    )
    assert out.stat().st_mode & 0o777 == 0o600
    values, counts = np.unique(np.asarray(features.gallery.camids), return_counts=True)
    assert found["cameras"] == [
        {"camid": camid, "rows": rows}
        for camid, rows in zip(values.tolist(), counts.tolist(), strict=True)
    ]
    assert (found["level"], found["dim"], found["dims"]) == ("pairs", 16, 16)
    assert found["pairs"] == len(expected.pairs)
    right, weight, known = 0, 0.0, []
    pids = np.asarray(features.gallery.pids).tolist()
    for (first, second), one in zip(expected.pairs.tolist(), expected.weights, strict=True):
        if pids[first] and pids[second]:  # 0: a distractor
            known.append(one)
            right += pids[first] == pids[second]
            weight += one * (pids[first] == pids[second])
    assert found["right"] == {
        "pairs": len(known), "share": pytest.approx(right / len(known)),
        "by_weight": pytest.approx(weight / sum(known)),
    }  # fmt: skip
    same = run(capsys, "rerank", file, "--method", "none", "--align-dims", "all")
    for name in ("before", "aligned"):
        assert found["metrics"][name] == same["metrics"][name]


def test_labels_have_no_part(features: FeatureSet, tmp_path: Path) -> None:
    """Without pids the same file, byte for byte, and no figure."""
    for name, some in (("a", features), ("b", replace(features, pids=None))):
        save_features(tmp_path / f"{name}.npz", some)
        words = ["align", str(tmp_path / f"{name}.npz"), "-o", str(tmp_path / f"{name}-a.npz")]
        assert main(words) == 0
    first, second = (load_alignment(tmp_path / f"{name}-a.npz") for name in "ab")
    assert first.sha256 == second.sha256


def test_without_labels_nothing_is_claimed(
    features: FeatureSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_features(tmp_path / "b.npz", replace(features, pids=None))
    assert main(["align", str(tmp_path / "b.npz")]) == 0
    text = capsys.readouterr().out
    assert "mAP" not in text
    assert "right" not in text


@pytest.mark.parametrize("how", [*WORDS])
def test_a_file_is_as_good_as_a_fit(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    words = [*WORDS[how], file]
    assert main(["align", str(file), "-o", str(tmp_path / "a.npz"), "--align-dims", "9"]) == 0
    capsys.readouterr()
    fitted = run(capsys, *words, "--align-cameras", "pairs", "--align-dims", 9)
    given = run(capsys, *words, "--alignment", tmp_path / "a.npz")
    for key in ("metrics", "aligned", "rows"):
        assert given.get(key) == fitted.get(key)
    if how != "evaluate":
        assert given["alignment"]["asked"] == "given"
        assert given["alignment"]["file"] == str(tmp_path / "a.npz")
    assert any(str(tmp_path / "a.npz") in note for note in given["notes"])


def test_unknown_cameras_get_the_mean_of_all(
    features: FeatureSet, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["align", str(file), "-o", str(tmp_path / "a.npz")]) == 0
    blind = replace(features, camids=None, pids=None)
    save_features(tmp_path / "blind.npz", blind)
    words = ["rerank", tmp_path / "blind.npz", "--method", "none"]
    capsys.readouterr()
    found = run(capsys, *words, "--alignment", tmp_path / "a.npz")
    assert found["alignment"]["level"] == "pairs"
    assert any("not known" in note for note in found["notes"])


@pytest.mark.parametrize("how", [*WORDS])
def test_refused_files(
    features: FeatureSet, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    words = [*WORDS[how], file]
    other, narrow = tmp_path / "other.npz", tmp_path / "narrow.npz"
    save_alignment(other, direct(features, encoder_sha256="cd" * 32))
    small = replace(features, features=features.features[:, :8])
    save_alignment(narrow, direct(small, encoder_sha256=SHA))
    (tmp_path / "text.npz").write_text("text")
    for bad in (other, narrow, file, tmp_path / "text.npz", tmp_path / "none.npz", tmp_path):
        assert main([*map(str, words), "--alignment", str(bad)]) == 2
        err = capsys.readouterr().err
        assert (str(bad) in err, err.count("\n")) == (True, 1)
    save_alignment(tmp_path / "a.npz", direct(features))
    for flag, value in (("--align-cameras", "auto"), ("--align-dims", "4")):
        options = ["--alignment", str(tmp_path / "a.npz"), flag, value]
        assert main([*map(str, words), *options]) == 2
        assert flag in capsys.readouterr().err


GALLERY, QUERIES = make_images(120), make_images(2, seed=1)
CAMIDS = np.arange(120) % 2


def test_a_searcher_takes_it(tmp_path: Path) -> None:
    engine = make_engine()
    rows = engine.embed(GALLERY)
    alignment = CameraAlignment.fit(rows, CAMIDS, level="mean", dims=5)
    save_alignment(tmp_path / "a.npz", alignment)
    options: dict[str, Any] = {"camids": CAMIDS, "candidates": 4}
    fitted = Searcher(engine, rows, GALLERY, **options, align_cameras="mean", align_dims=5)
    for given in (alignment, tmp_path / "a.npz", str(tmp_path / "a.npz")):
        for made in (
            Searcher(engine, rows, GALLERY, **options, alignment=given),
            Searcher.from_images(engine, GALLERY, **options, alignment=given),
        ):
            for query in QUERIES:
                assert made.search(query, camid=1).matches == fitted.search(query, camid=1).matches
    engine.encoder_sha256 = SHA
    bound = CameraAlignment.fit(rows, CAMIDS, encoder_sha256="cd" * 32, level="mean")
    narrow = CameraAlignment.fit(rows[:, :5], CAMIDS, level="mean")
    for bad in (bound, narrow, 7, tmp_path / "none.npz"):
        with pytest.raises(InputError):
            Searcher(engine, rows, GALLERY, **options, alignment=bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="align_dims"):
        Searcher(engine, rows, GALLERY, **options, alignment=alignment, align_dims=5)


@pytest.fixture
def pictured(job: ImageJob, features: FeatureSet) -> FeatureSet:
    """Features whose rows are images of the job, each of several rows."""
    names = sorted(job.gallery.iterdir())
    count = len(features.paths)
    paths = np.array([str(names[row % len(names)].name) for row in range(count)])
    made = replace(features, paths=paths)
    save_features(job.folder / "f.npz", made)
    return made


def ref_mu(job: ImageJob, first: str, second: str) -> float:
    engine = FakeEngine(job.engine, job)
    ready = [prepare(job.gallery / name, engine.manifest.scorer.preprocessing)  # type: ignore[union-attr]
             for name in (first, second)]  # fmt: skip
    return float(engine.mu_many([ready[0]], [[ready[1]]])[0, 0])


def ask(job: ImageJob, count: int, *options: object) -> list[str]:
    words = ["align", job.folder / "f.npz", "--engine", job.engine, "--verify-pairs", count]
    return [str(word) for word in (*words, "--image-root", job.gallery, *options)]


def asked_images(made: FeatureSet, found: CameraAlignment, count: int) -> set[tuple[str, str]]:
    """The pairs of files behind the pairs of rows with the largest shares."""
    shares = found.pair_shares(made.gallery.features, np.asarray(made.gallery.camids))
    largest = sorted(range(len(shares)), key=lambda one: -shares[one])[:count]
    first, second = (made.gallery.paths[found.pairs[largest, side]].tolist() for side in (0, 1))
    return set(zip(first, second, strict=True))


def expected_weights(
    job: ImageJob, made: FeatureSet, found: CameraAlignment, count: int, blind: str = ""
) -> Any:
    """Weights once the MLLM was asked about the pairs with the largest weighted distance."""
    rows, camids = made.gallery.features, np.asarray(made.gallery.camids)
    shares = found.pair_shares(rows, camids)
    weights, paths = found.weights, made.gallery.paths
    for place in sorted(range(len(shares)), key=lambda one: -shares[one])[:count]:
        names = [str(paths[row]) for row in found.pairs[place]]
        if blind not in names:
            weights[place] *= (1 - ref_mu(job, *names)) ** 2
    return weights


def test_the_mllm_is_asked_about_the_pairs_that_matter_most(
    job: ImageJob, pictured: FeatureSet, capsys: pytest.CaptureFixture[str]
) -> None:
    out = job.folder / "a.npz"
    found = run(capsys, *ask(job, 25, "-o", out))
    assert job.loaded[0]["parts"] == ["scorer"]
    first = direct(pictured)
    assert job.done["given"] == len(asked_images(pictured, first, 25)) < 25
    weights = expected_weights(job, pictured, first, 25)
    assert not np.array_equal(weights, first.weights)
    again = direct(pictured, pairs=first.pairs, weights=weights)
    camids = np.asarray(pictured.camids)
    given = load_alignment(out).cameras.apply(pictured.features, camids)
    # Weights that differ by rounding of float32 mu, in a sum of many.
    expected = again.apply(pictured.features, camids)
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5)
    assert np.abs(given - first.apply(pictured.features, camids)).max() > 1e-3
    assert (found["verified"]["asked"], found["verified"]["skipped"]) == (25, [])
    unasked = run(capsys, "align", job.folder / "f.npz")
    assert found["verified"]["right_before"] == unasked["right"] != found["right"]


def test_a_pair_without_an_answer_counts_as_before(
    job: ImageJob, pictured: FeatureSet, capsys: pytest.CaptureFixture[str]
) -> None:
    count, out = 10**6, job.folder / "a.npz"  # more than there are: all
    broken = next(job.gallery.iterdir())
    expected = expected_weights(job, pictured, direct(pictured), count, broken.name)
    broken.write_bytes(b"no picture")
    found = run(capsys, *ask(job, count, "-o", out))
    assert found["verified"]["asked"] == found["pairs"]
    assert [Path(one["path"]).name for one in found["verified"]["skipped"]] == [broken.name]
    first = direct(pictured)
    again = direct(pictured, pairs=first.pairs, weights=expected)
    camids = np.asarray(pictured.camids)
    np.testing.assert_allclose(
        load_alignment(out).cameras.apply(pictured.features, camids),
        again.apply(pictured.features, camids), rtol=0, atol=1e-5,
    )  # fmt: skip
    assert main([*ask(job, count), "--strict"]) == 2
    assert broken.name in capsys.readouterr().err


def test_the_folder_of_a_run(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.run("-o", job.out) == 0
    capsys.readouterr()
    found = run(capsys, "align", job.out, "-o", tmp_path / "a.npz", "--align-cameras", "mean")
    made = load_features(job.out / "features.npz")
    assert found["features"] == str(job.out / "features.npz")
    assert made.encoder_sha256 is not None
    assert CameraAlignment.load(tmp_path / "a.npz", encoder_sha256=made.encoder_sha256).dim == DIM
    # Of this encoder: a run on its images takes it, and knows when it is another one.
    job.stop_at = ("given", 4)
    assert job.run("-o", job.folder / "new", "--alignment", tmp_path / "a.npz") == 130
    job.stop_at = None
    assert job.run("-o", job.folder / "new", "--align-cameras", "off") == 2
    assert job.run("-o", job.folder / "new", "--alignment", tmp_path / "a.npz") == 0
    summary = json.loads((job.folder / "new" / "job.json").read_text())
    assert summary["alignment"]["level"] == "mean"
    other = tmp_path / "other.npz"
    save_alignment(other, direct(made, level="mean", encoder_sha256=SHA))
    capsys.readouterr()
    assert job.run("-o", job.folder / "newer", "--alignment", other) == 2
    assert str(other) in capsys.readouterr().err
    assert job.done["embed"] == 0
    assert main(["align", str(job.query)]) == 2
    assert str(job.query) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (["--engine", "E"], "--verify-pairs"),
        (["--verify-pairs", "3"], "--engine"),
        (["--verify-pairs", "3", "--engine", "E", "--align-cameras", "mean"], "--verify-pairs"),
        (["--verify-pairs", "0", "--engine", "E"], "--verify-pairs"),
        (["--image-root", "."], "--engine"),
        (["--strict"], "--engine"),
        (["--bits", "12"], "--engine"),
        (["--overwrite"], "--output"),
        (["--align-cameras", "off"], "--align-cameras"),
        (["--align-dims", "17"], "--align-dims"),
        (["-o", "F"], "f.npz"),
    ],
)
def test_usage(
    file: Path, options: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(file) if word == "F" else word for word in options]
    assert main(["align", str(file), *words]) == 2
    assert flag in capsys.readouterr().err


@pytest.mark.parametrize("lowest", [None, -3])
def test_unfit_features(
    features: FeatureSet, tmp_path: Path, lowest: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    camids = None if lowest is None else np.arange(len(features.paths)) % 3 + lowest
    save_features(tmp_path / "f.npz", replace(features, camids=camids))
    assert main(["align", str(tmp_path / "f.npz"), "-o", str(tmp_path / "a.npz")]) == 2
    assert "camids" in capsys.readouterr().err
    assert not (tmp_path / "a.npz").exists()


def test_too_few_pairs_to_ask_about(
    job: ImageJob, features: FeatureSet, capsys: pytest.CaptureFixture[str]
) -> None:
    one_camera = replace(features, camids=np.zeros(len(features.paths), int))
    save_features(job.folder / "f.npz", one_camera)
    assert main(ask(job, 5)) == 2
    assert "--verify-pairs" in capsys.readouterr().err
    assert not job.loaded


@pytest.mark.parametrize(
    ("reason", "verbs"),
    [
        ("rows", [*WORDS]), ("cameras", [*WORDS]), ("unknown", [*WORDS]), ("none", ["rerank"]),
    ],
)  # fmt: skip
def test_why_auto_does_nothing_is_one_line(
    features: FeatureSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str,
    verbs: list[str],
) -> None:  # fmt: skip
    rows, camids = slice(features.features.shape[0]), np.asarray(features.camids)
    if reason == "rows":
        rows = slice(features.num_query + 60)
    given = {
        "rows": camids[rows], "cameras": np.where(np.arange(len(camids)) % 60, 1, 2),
        "unknown": np.where(camids == 1, 1, -1), "none": None,
    }[reason]  # fmt: skip
    assert features.pids is not None
    some = FeatureSet(
        features.features[rows], features.paths[rows], features.pids[rows], given,
        features.num_query,
    )  # fmt: skip
    save_features(tmp_path / "f.npz", some)
    for verb in verbs:
        call = [*WORDS[verb], str(tmp_path / "f.npz")]
        note = run(capsys, *call)["alignment"]["note"]
        assert main(call) == 0
        assert capsys.readouterr().out.splitlines().count(note) == 1
        assert main([*call, "--align-cameras", "off"]) == 0
        assert note not in capsys.readouterr().out

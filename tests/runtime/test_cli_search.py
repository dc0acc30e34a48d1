"""`murank search` on the shipped engine: what it prints, writes and refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refusal import Refuse

from murank import Engine, FeatureSet, Searcher, save_features
from murank.calibration import store_defaults
from murank.cli import main
from murank.folder.contents import EngineFiles
from murank.folder.graph_hash import encoder_sha256
from murank.folder.manifest import engine_sha256
from murank.rerank.intervals import Gain
from murank.rerank.proposal import Proposal
from murank_export.world import draw_crop, make_domain, make_people

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
PEOPLE, CAMERAS = 6, 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of six people: the first camera's in query/, the others' in gallery/."""
    folder = tmp_path_factory.mktemp("place")
    domain = make_domain("dusk", seed=3)
    for who, person in enumerate(make_people(PEOPLE, seed=4)):
        for camera in range(CAMERAS):
            file = folder / ("gallery" if camera else "query") / f"{who}_{camera}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(np.asarray(draw_crop(person, domain, camera, (who, camera)))).save(file)
    return folder


def words(place: Path, *options: object, gallery: object = None, engine: Path = ENGINE) -> Any:
    return [
        "search", engine, "--gallery", gallery or place / "gallery", "--providers", "cpu",
        "--quiet", "--query", place / "query" / "0_0.png", *options,
    ]  # fmt: skip


def search(place: Path, *options: object, **where: Any) -> int:
    return main([str(word) for word in words(place, *options, **where)])


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_an_engines_own_proposal(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken as if it had been named, unless something is; where it is to leave mu out, no MLLM."""
    engine = tmp_path / "engine"
    shutil.copytree(ENGINE, engine)
    gain, asked = Gain(0.01, 0.0, 0.02, 9), engine_sha256(ENGINE)
    for method, alpha, count in (("k-reciprocal", 0.4, 50), ("none", 0.5, 3)):
        proposal = Proposal(method, alpha, count, gain, {}, people=9, folds=5)
        store_defaults(engine, proposal, asked=asked, alignment="off")
    assert search(place, "--json", engine=engine) == 0
    found = told(capsys)
    assert search(place, "--json", "--alpha", 0.4, "--candidates", 12) == 0  # there are no more
    named = told(capsys)
    assert (found["parameters"]["alpha"], found["candidates"]) == (0.4, 12)
    assert found["queries"][0]["matches"] == named["queries"][0]["matches"]
    assert any("own default" in note for note in found["notes"])
    for options, expected in ((["--candidates", 4], (0.2, 4)), (["--alpha", 0.1], (0.1, 12))):
        assert search(place, "--json", *options, engine=engine) == 0
        found = told(capsys)
        assert (found["parameters"]["alpha"], found["candidates"]) == expected
    proposal = Proposal("k-reciprocal", 0.0, 0, gain, {}, people=9, folds=5)
    store_defaults(engine, proposal, asked=asked, alignment="off")
    for options, void in (
        ([], set()),
        (["--warm", "--deadline-ms", 50], {"--warm", "--deadline-ms"}),
    ):
        assert search(place, "--json", *options, engine=engine) == 0
        found = told(capsys)
        assert found["candidates"] == 0
        (note,) = [one for one in found["notes"] if "own default" in one]
        assert "--alpha" in note
        assert {flag for flag in ("--warm", "--deadline-ms") if flag in note} == void
    assert search(place, "--json", "--no-mu", "--method", "none", engine=engine) == 0
    assert not any("own default" in note for note in told(capsys)["notes"])


def test_a_job_folder_is_a_gallery(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths in it start where murank score ran."""
    monkeypatch.chdir(place)
    words = ["score", str(ENGINE), "--query", "query", "--gallery", "gallery", "--no-mu", "-o"]
    assert main([*words, str(tmp_path / "job"), "--providers", "cpu", "--quiet"]) == 0
    monkeypatch.chdir(tmp_path)
    assert search(place, "--json") == 0
    capsys.readouterr()
    found = []
    for gallery in (tmp_path / "job", place / "gallery"):
        assert search(place, "--json", gallery=gallery) == 0
        found.append([one["path"] for one in told(capsys)["queries"][0]["matches"]])
    assert [str(place / name) for name in found[0]] == found[1]
    (tmp_path / "job" / "job.json").write_text("{}")
    assert search(place, gallery=tmp_path / "job") == 2
    assert "job.json" in capsys.readouterr().err


def test_json_says_what_the_searcher_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = place / "query" / "3_0.png"
    options = ["--candidates", 5, "--k1", 4, "--k2", 2, "--alpha", 0.3, "--top-k", 4, "--json"]
    assert search(place, second, *options) == 0
    found = told(capsys)
    paths = sorted((place / "gallery").iterdir())
    engine = Engine.from_pretrained(ENGINE, providers="cpu")
    searcher = Searcher.from_images(
        engine, paths, candidates=5, parameters={"k1": 4, "k2": 2, "alpha": 0.3}
    )
    assert [one["query"] for one in found["queries"]] == [
        str(place / "query" / "0_0.png"), str(second)
    ]  # fmt: skip
    for one in found["queries"]:
        wanted = searcher.search(one["query"], top_k=4)
        assert [m["path"] for m in one["matches"]] == [
            str(paths[m.corpus_id]) for m in wanted.matches
        ]
        for have, want in zip(one["matches"], wanted.matches, strict=True):
            assert have["distance"] == pytest.approx(want.distance, abs=1e-5)
            assert have["mu"] == pytest.approx(want.mu, abs=1e-5)
            assert have["encoder_distance"] == pytest.approx(want.encoder_distance, abs=1e-5)
        assert (one["scored"], one["candidates"], one["partial"]) == (5, 5, False)
        assert {"decode", "embed", "retrieve", "prefill", "score", "rerank"} <= one[
            "seconds"
        ].keys()
    assert found["parameters"] == {
        "k1": 4, "k2": 2, "alpha": 0.3, "lambda_value": 0.3, "squared": False, "normalize": True,
        "device": "cpu",
    }  # fmt: skip
    assert found["num_gallery"] == PEOPLE * (CAMERAS - 1)
    assert found["engine"]["sha256"] == engine.sha256
    assert found["skipped"] == []


def test_the_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(place, "--top-k", 3) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "0_0.png: 12 of 12 candidates seen by the MLLM" in lines[0]
    assert lines[1].split() == ["rank", "distance", "mu", "encoder", "image"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3"]
    assert search(place, "--no-mu", "--top-k", 1) == 0
    first, _, row = capsys.readouterr().out.splitlines()
    assert "no MLLM asked" in first
    assert row.split()[2] == "-"


def test_a_deadline(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(place, "--deadline-ms", 0.001) == 0
    assert "0 of 12 candidates seen by the MLLM (deadline)" in capsys.readouterr().out
    assert search(place, "--deadline-ms", 1e7, "--warm", "--json") == 0
    found = told(capsys)
    assert found["deadline_ms"] == 1e7
    assert [one["scored"] for one in found["queries"]] == [12]


def test_an_early_stop(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--method", "simple", "--settle-top", 1, "--alpha", 0, "--json"]
    assert search(place, *options) == 0
    (one,) = told(capsys)["queries"]
    assert (one["scored"], one["settled"]) == (4, True)


def test_features_of_an_earlier_run(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    query, paths = place / "query" / "0_0.png", sorted((place / "gallery").iterdir())
    engine = Engine.from_pretrained(ENGINE, providers="cpu", parts=["encoder"])
    features = engine.embed([query, *paths])
    names = [str(path.relative_to(place)) for path in (query, *paths)]
    save_features(tmp_path / "f.npz", FeatureSet(features, np.array(names), None, None, 1))
    assert search(place, "--json") == 0
    wanted = told(capsys)["queries"][0]["matches"]
    root = ["--image-root", place]
    assert search(place, "--json", *root, gallery=tmp_path / "f.npz") == 0
    found = told(capsys)["queries"][0]["matches"]
    assert [m["path"] for m in found] == [m["path"] for m in wanted]
    assert [m["mu"] for m in found] == pytest.approx([m["mu"] for m in wanted], abs=1e-5)
    other = FeatureSet(features[:, :9], np.array(names), None, None, 1)
    save_features(tmp_path / "g.npz", other)
    refuse(*words(place, gallery=tmp_path / "g.npz"), names="g.npz")
    made_by = encoder_sha256(EngineFiles(ENGINE, engine.manifest))
    for sha256, code in ((made_by, 0), ("0" * 64, 2)):
        made = replace(other, features=features, encoder_sha256=sha256)
        save_features(tmp_path / "g.npz", made, overwrite=True)
        assert search(place, "--json", *root, gallery=tmp_path / "g.npz") == code
    assert "has features of another encoder than that of" in capsys.readouterr().err


def test_images_that_cannot_be_used_are_left_out_and_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    listed = tmp_path / "list.csv"
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows = [str(path) for path in sorted((place / "gallery").iterdir())]
    listed.write_text("\n".join(["path", rows[0], "bad.png", *rows[1:]]))
    assert search(place, "--json", gallery=listed) == 0
    found = told(capsys)
    assert found["num_gallery"] == len(rows)
    assert [one["path"] for one in found["skipped"]] == [str(tmp_path / "bad.png")]
    assert {m["path"] for m in found["queries"][0]["matches"]} <= set(rows)
    refuse(*words(place, "--strict", gallery=listed), names="bad.png")
    listed.write_text("path\nbad.png")
    refuse(*words(place, gallery=listed), names="bad.png")


def test_a_sheet(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    sheet = tmp_path / "sheet.png"
    assert search(place, place / "query" / "1_0.png", "--sheet", sheet) == 0
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        one = image.size
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 12  # as many rows as without a sheet
    refuse(*words(place, "--sheet", sheet), names="sheet.png")
    assert search(place, "--sheet", sheet, "--overwrite") == 0
    with Image.open(sheet) as image:
        assert image.size[1] < one[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--candidates", 13], "13 candidates a query asked for, but the gallery has 12 images"),
        (["--deadline-ms", 0], "--deadline-ms"),
        (["--deadline-ms", "nan"], "must be a number above 0"),
        (["--settle-top", 2], "--settle-top"),
        (["--k1", 0], "--k1"),
        (["--method", "simple", "--k1", 3], "--k1"),
        (["--method", "none", "--alpha", 0.1], "--alpha"),
        (["--method", "none", "--candidates", 3], "--candidates"),
        (["--no-mu", "--deadline-ms", 3], "--deadline-ms"),
        (["--no-mu", "--warm"], "--warm"),
        (["--no-mu", "--method", "simple"], "'simple' fuses mu-distances"),
        (["--image-root", "x"], "--image-root"),
        (["--overwrite"], "--overwrite"),
        (["--sheet", "s.jpg"], "--sheet"),
        (["--sha256", "ab" * 32], "sha256"),
        (["--method", "ecn"], "invalid choice: 'ecn'"),
    ],
)
def test_refused_before_the_engine_is_loaded(
    place: Path,
    refuse: Refuse,
    monkeypatch: pytest.MonkeyPatch,
    options: list[object],
    message: str,
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(Engine, "from_pretrained", load)
    refuse(*words(place, *options), names=message)


def test_missing_files(place: Path, tmp_path: Path, refuse: Refuse) -> None:
    for wrong in (place / "none.png", place / "list.csv", place / "query"):
        refuse(*words(place, wrong), names=wrong)
    refuse(*words(place, gallery=tmp_path / "none"), names="none")
    refuse("search", tmp_path, "--gallery", place, "--query", __file__, names="manifest.json")


@pytest.mark.parametrize(("camid", "is_known"), [(0, True), (1, True), (2, False)])
def test_a_camera_that_the_gallery_has_not(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], camid: int, is_known: bool
) -> None:
    images = sorted((place / "gallery").iterdir())
    lines = [f"{one},{number},{number % 2}" for number, one in enumerate(images)]
    (tmp_path / "g.csv").write_text("\n".join(["path,pid,camid", *lines]))
    options = ["--no-mu", "--json", "--camid", camid]
    assert search(place, *options, gallery=tmp_path / "g.csv") == 0
    named = [note for note in told(capsys)["notes"] if "--camid" in note]
    assert len(named) == (not is_known)


def test_a_query_that_the_gallery_has(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(place, "--no-mu", "--json", gallery=place) == 0
    assert any("1 of 1 queries are in the gallery" in note for note in told(capsys)["notes"])


def test_cameras_of_queries_by_their_names(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where names say the gallery's cameras, a query's says its own; --camid comes first."""
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    images = sorted((place / "gallery").iterdir())
    for number, image in enumerate(images):
        shutil.copy(image, gallery / f"000{number}_c{number % 2 + 1}.png")
    (tmp_path / "g.csv").write_text(
        "\n".join(["path,camid", *(f"{one},{i % 2}" for i, one in enumerate(images))])
    )
    query = tmp_path / "0007_c2.png"
    shutil.copy(place / "query" / "0_0.png", query)

    def found(*options: object, gallery: Path = gallery) -> tuple[Any, list[str]]:
        asked = ["--no-mu", "--json", "--align-cameras", "mean", "--query", query, *options]
        assert search(place, *asked, gallery=gallery) == 0
        result = told(capsys)
        return result["queries"], [note for note in result["notes"] if "--camid" in note]

    named, notes = found()
    assert named[0]["camid"] == 1
    assert len(notes) == 1
    given, notes = found("--camid", 1)
    assert given[0]["matches"] == named[0]["matches"]
    assert not notes
    unknown, notes = found("--camid", -1)
    assert unknown[0]["camid"] is None
    assert unknown[0]["matches"] != named[0]["matches"]
    assert not notes
    assert found(gallery=tmp_path / "g.csv")[0][0]["camid"] is None  # its names say no cameras
    both, notes = found(place / "query" / "0_0.png")
    assert [one["camid"] for one in both] == [1, None]
    assert "0_0.png" in notes[0]

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusal import Refuse

from murank import load_features
from murank.cli import main


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def distances_file(feature_file: Path) -> Path:
    features = load_features(feature_file)
    assert features.labels is not None
    query, gallery = features.query.features, features.gallery.features
    distances = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    file = feature_file.with_name("distances.npz")
    labels = {name: ids for name, ids in vars(features.labels).items() if ids is not None}
    np.savez(file, distmat=distances, **labels)
    return file


@pytest.mark.parametrize("protocol", ["market1501", "cuhk03", "trapezoid"])
def test_features_and_their_distances_agree(
    feature_file: Path, distances_file: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    features = evaluate(capsys, feature_file, "--protocol", protocol)
    distances = evaluate(capsys, distances_file, "--protocol", protocol)
    assert (features["kind"], distances["kind"]) == ("features", "distances")
    assert features["metrics"] == pytest.approx(distances["metrics"])
    assert features["cmc"] == pytest.approx(distances["cmc"])


@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_ranking_of_everything_is_exact(
    feature_file: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    out = feature_file.with_name("out")
    main(["rerank", str(feature_file), "--method", "none", "--top-k", "9999",
          "-o", str(out), "--quiet"])  # fmt: skip
    capsys.readouterr()
    ranking = evaluate(capsys, out if given == "folder" else out / "ranking.npz")
    features = evaluate(capsys, feature_file)
    assert ranking["kind"] == "ranking"
    assert ranking["notes"] == []
    assert ranking["cmc"] == pytest.approx(features["cmc"])
    assert ranking["metrics"]["mAP"] == pytest.approx(features["metrics"]["mAP"])
    assert evaluate(capsys, out, "--max-rank", 2)["cmc"] == ranking["cmc"][:2]


def test_a_short_ranking_says_what_it_cannot_know(
    feature_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = feature_file.with_name("out")
    main(["rerank", str(feature_file), "--method", "none", "--top-k", "3",
          "-o", str(out), "--quiet"])  # fmt: skip
    capsys.readouterr()
    found = evaluate(capsys, out)
    assert "mAP" not in found["metrics"]
    assert 0 < found["metrics"]["mAP at least"] < 1
    assert found["metrics"]["rank-10"] is None
    assert main(["evaluate", str(out)]) == 0
    table = capsys.readouterr().out
    assert "mAP at least" in table
    assert " -" in table


def test_max_rank_is_the_length_of_the_curve(
    feature_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(capsys, feature_file, "--max-rank", 7)
    assert len(found["cmc"]) == 7
    assert found["metrics"]["rank-10"] is None


def test_seed_and_repeats_matter(feature_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draws = [
        evaluate(capsys, feature_file, "--protocol", "cuhk03", "--repeats", 2, "--seed", seed)
        for seed in (1, 1, 2)
    ]
    more = evaluate(capsys, feature_file, "--protocol", "cuhk03", "--repeats", 5, "--seed", 1)
    assert more["cmc"] != draws[0]["cmc"]
    assert draws[0] == draws[1]
    assert draws[0]["cmc"] != draws[2]["cmc"]


def test_table(feature_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = evaluate(capsys, feature_file)["metrics"]
    assert main(["evaluate", str(feature_file)]) == 0
    *_, line, why = capsys.readouterr().out.splitlines()
    assert why.startswith("not aligned")
    keys = ("mAP", "rank-1", "rank-5", "rank-10")
    assert line.split() == ["euclidean", *(f"{100 * metrics[key]:.2f}" for key in keys)]


def changed(file: Path, **changes: Any) -> Path:
    arrays = {**np.load(file), **changes}
    np.savez(file, **{key: value for key, value in arrays.items() if value is not None})
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_pids": None}, "q_pids"),
        ({"distmat": None}, "holds neither features, distmat nor indices"),
        ({"g_pids": np.zeros(3, int)}, "g_"),
        ({"q_pids": np.full(1, 9)}, "q_"),
        ({"distmat": np.full((2, 2), np.nan)}, "distmat"),
    ],
)
def test_bad_distances(
    distances_file: Path, refuse: Refuse, changes: dict[str, Any], message: str
) -> None:
    refuse("evaluate", changed(distances_file, **changes), names=message)


def test_nothing_to_evaluate_by(feature_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    num_rows = len(load_features(feature_file).paths)
    assert main(["evaluate", str(changed(feature_file, pids=np.arange(num_rows)))]) == 2
    assert "no query has" in capsys.readouterr().err
    assert main(["evaluate", str(changed(feature_file, pids=None))]) == 2
    assert "no pids" in capsys.readouterr().err


def test_a_ranking_takes_one_protocol(
    feature_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = feature_file.with_name("out")
    main(["rerank", str(feature_file), "--method", "none", "-o", str(out)])
    for options in (["--protocol", "trapezoid"], ["--num-query", "3"]):
        assert main(["evaluate", str(out), *options]) == 2
    assert "market1501 only" in capsys.readouterr().err


def junk_file(folder: Path) -> tuple[Path, float, float]:
    """Return distances where junk stands first, and mAP with and without it."""
    file = folder / "d.npz"
    np.savez(
        file, distmat=np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), q_pids=[7, -1],
        g_pids=[-1, 7, 8], q_camids=[0, 0], g_camids=[1, 1, 1],
    )  # fmt: skip
    return file, (1 / 2 + 1) / 2, 1.0


@pytest.mark.parametrize("protocol", ["market1501", "cuhk03"])
def test_junk(protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, kept, dropped = junk_file(tmp_path)
    for flags, value, word in (([], kept, "--drop-junk"), (["--drop-junk"], dropped, "left out")):
        assert main(["evaluate", str(file), "--json", "--protocol", protocol, *flags]) == 0
        out, err = capsys.readouterr()
        found = json.loads(out)
        assert err == ""
        assert found["metrics"]["mAP"] == value
        assert [word in note for note in found["notes"]] == [True]


def test_trapezoid_has_no_junk_in_the_gallery(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the original code, whatever is asked for; a junk query counts unless it is dropped."""
    found = {}
    for flags in ((), ("--drop-junk",)):
        file = junk_file(tmp_path)[0]
        assert main(["evaluate", str(file), "--json", "--protocol", "trapezoid", *flags]) == 0
        found[flags] = json.loads(capsys.readouterr().out)
    gallery, query = found[()]["notes"]
    assert ("left out" in gallery, "gallery image" in gallery) == (True, True)
    assert ("as persons" in query, "1 of pid -1 (query)" in query) == (True, True)
    (both,) = found[("--drop-junk",)]["notes"]
    assert ("left out" in both, "query" in both, "gallery image" in both) == (True, True, True)


def test_junk_in_rerank_and_its_ranking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    pids = np.array([0, 1, -1, 0, 1, -1, -1, 2])
    camids = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    features, clean = tmp_path / "f.npz", tmp_path / "clean.npz"
    rows, paths = rng.normal(size=(8, 4)), np.array(["query"] * 3 + ["g"] * 5)
    np.savez(features, features=rows, paths=paths, pids=pids, camids=camids)
    keep = pids != -1
    np.savez(clean, features=rows[keep], paths=paths[keep], pids=pids[keep], camids=camids[keep])
    rerank = ["--method", "none", "--json", "--quiet"]
    assert main(["rerank", str(clean), *rerank]) == 0
    desired = json.loads(capsys.readouterr().out)
    out = tmp_path / "out"
    assert main(["rerank", str(features), *rerank, "--drop-junk", "-o", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["after"] == desired["metrics"]["after"]
    assert desired["notes"] == []
    assert "left out" in found["notes"][0]
    assert main(["evaluate", str(out), "--drop-junk", "--json"]) == 0
    ranked = json.loads(capsys.readouterr().out)
    assert ranked["metrics"]["mAP"] == pytest.approx(desired["metrics"]["after"]["mAP"])
    assert main(["evaluate", str(features), "--rerankers", "--json", "--quiet", "--drop-junk"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["rows"][0]["metrics"]["mAP"] == desired["metrics"]["after"]["mAP"]
    assert "left out" in compared["notes"][0]


def test_a_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "0001_c1.jpg").write_bytes(b"")
    assert main(["evaluate", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path} holds no job and no ranking" in said

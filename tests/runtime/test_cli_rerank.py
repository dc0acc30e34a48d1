import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusal import Refuse

from murank import load_features, load_ranking
from murank.cli import main
from murank.rerank import pipeline as _pipeline

METHODS = ["k-reciprocal", "ecn", "ca-jaccard", "none"]


def rerank(features: Path, method: str, *options: object) -> int:
    arguments = ["rerank", features, "--method", method, "--quiet", *options]
    return main([str(argument) for argument in arguments])


def without(file: Path, *keys: str, **changes: Any) -> Path:
    """A copy of the features file that lacks some arrays and has others changed."""
    arrays = {key: value for key, value in np.load(file).items() if key not in keys}
    copy = file.with_name("copy.npz")
    np.savez(copy, **{**arrays, **changes})
    return copy


@pytest.mark.parametrize("method", METHODS)
def test_json_is_the_summary_and_nothing_else(
    feature_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    assert rerank(feature_file, method, "--json", "-o", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert err == ""
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["method"] == method
    assert summary["counts"]["num_query"] == load_features(feature_file).num_query
    assert 0 < summary["metrics"]["before"]["mAP"] <= 1
    assert (summary["metrics"]["before"] == summary["metrics"]["after"]) == (method == "none")


def test_summary_records_defaults_and_what_was_given(
    feature_file: Path, mu_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--k1", 6, "--lambda", 0.5, "--squared", "--mu", mu_file, "--json"]
    assert rerank(feature_file, "k-reciprocal", *options) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == {
        "k1": 6, "k2": 5, "lambda_value": 0.5, "squared": True, "alpha": 0.2,
        "normalize": True, "device": "cpu",
    }  # fmt: skip


def test_options_reach_the_kernel(feature_file: Path, tmp_path: Path, mu_file: Path) -> None:
    from murank_kernels import k_reciprocal

    given = load_features(feature_file)
    mu = np.load(mu_file)
    wanted = k_reciprocal(
        given.features, given.num_query, k1=6, k2=2, lambda_value=0.5, squared=True, alpha=0.4,
        mu=mu["probs"], candidates=mu["gallery_indices"], top_k=7,
    )  # fmt: skip
    options = ["--k1", 6, "--k2", 2, "--lambda", 0.5, "--squared", "--alpha", 0.4, "--mu", mu_file]
    assert rerank(feature_file, "k-reciprocal", *options, "--top-k", 7, "-o", tmp_path / "o") == 0
    found = load_ranking(tmp_path / "o")
    np.testing.assert_array_equal(found.distances, wanted[0])
    np.testing.assert_array_equal(found.indices, wanted[1])


def test_switches_reach_the_kernel(feature_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rerank(feature_file, "ca-jaccard", "--no-ckrnns", "--clqe", "--k1", 4, "--json") == 0
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    assert (parameters["ckrnns"], parameters["clqe"], parameters["k1"]) == (False, True, 4)
    assert rerank(feature_file, "ecn", "--ecn-method", "origdist", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["method"] == "origdist"


def test_table(feature_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rerank(feature_file, "k-reciprocal") == 0
    out = capsys.readouterr().out
    assert main(["rerank", str(feature_file), "--method", "k-reciprocal",
                 "--json", "--quiet"]) == 0  # fmt: skip
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert rows["mAP"] == ["rank-1", "rank-5", "rank-10"]
    for name, when in (("encoder", "before"), ("k-reciprocal", "after")):
        keys = ("mAP", "rank-1", "rank-5", "rank-10")
        assert rows[name] == [f"{100 * metrics[when][key]:.2f}" for key in keys]
    difference = 100 * (metrics["after"]["mAP"] - metrics["before"]["mAP"])
    assert rows["gain"][0] == f"{difference:+.2f}"


def test_distances_are_never_held_all_at_once(
    feature_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from murank_kernels import DistanceBlocks

    def refuse(*_args: object) -> None:
        raise AssertionError("one pass over the blocks is enough")

    for name in ("dense", "top_k", "dense_or_top_k"):
        monkeypatch.setattr(DistanceBlocks, name, refuse)
    assert rerank(feature_file, "k-reciprocal", "-o", tmp_path / "out") == 0


def test_top_k_is_at_most_the_gallery(feature_file: Path, tmp_path: Path) -> None:
    assert rerank(feature_file, "none", "--top-k", 10**6, "-o", tmp_path / "out") == 0
    found = load_ranking(tmp_path / "out")
    assert found.indices.shape[1] == len(found.gallery_paths)
    assert found.labels is not None


@pytest.mark.parametrize("missing", ["pids", "camids"])
def test_without_labels_it_ranks_and_says_so(
    feature_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    file = without(feature_file, missing)
    assert rerank(file, "k-reciprocal", "-o", tmp_path / "out") == 0
    assert f"not evaluated: the features have no {missing}" in capsys.readouterr().out
    labels = load_ranking(tmp_path / "out").labels
    assert (labels is None) == (missing == "pids")
    assert rerank(file, "k-reciprocal", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == dict.fromkeys(
        ("before", "aligned", "without_mu", "after")
    )


def test_labels_without_a_match(feature_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    num_rows = len(load_features(feature_file).paths)
    file = without(feature_file, pids=np.arange(num_rows))
    assert rerank(file, "k-reciprocal") == 0
    assert "no query has a gallery image of its pid" in capsys.readouterr().out


def test_swapped_mu_is_averaged(
    feature_file: Path, mu_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mu = np.load(mu_file)
    swapped, mean = tmp_path / "swapped.npz", tmp_path / "mean.npz"
    np.savez(swapped, probs=1 - mu["probs"], gallery_indices=mu["gallery_indices"])
    half = np.full(mu["probs"].shape, 0.5)
    np.savez(mean, probs=half, gallery_indices=mu["gallery_indices"])
    found = []
    for options in (["--mu", mu_file, "--mu-swapped", swapped], ["--mu", mean]):
        assert rerank(feature_file, "simple", "--json", *options) == 0
        found.append(json.loads(capsys.readouterr().out)["metrics"])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("ecn", ["--k1", "3"], "does not use --k1; used by: k-reciprocal, ca-jaccard"),
        ("k-reciprocal", ["--k", "3"], "used by: ecn"),
        ("ca-jaccard", ["--squared"], "used by: k-reciprocal"),
        ("none", ["--lambda", "0.1"], "used by: k-reciprocal, ca-jaccard"),
        ("k-reciprocal", ["--ecn-method", "rankdist"], "used by: ecn"),
        ("k-reciprocal", ["--no-ckrnns"], "used by: ca-jaccard"),
        ("ca-jaccard", ["--k1", "3"], "--k1"),
        ("ca-jaccard", ["--k2-inter", "3"], "only with --clqe"),
        ("ca-jaccard", ["--clqe", "--k2", "3"], "--clqe"),
        ("ca-jaccard", ["--no-ckrnns", "--k1-intra", "3"], "--no-ckrnns"),
        ("simple", [], "--mu"),
        ("none", ["--mu", "M"], "does not use --mu"),
        ("k-reciprocal", ["--mu-swapped", "M"], "--mu-swapped"),
        ("none", ["--candidates", "3"], "does not use --candidates"),
        ("k-reciprocal", ["--candidates", "3"], "--candidates"),
        ("k-reciprocal", ["--mu", "M", "--no-mu"], "--mu"),
        ("k-reciprocal", ["--gallery-mu", "M", "--no-mu"], "--gallery-mu"),
        ("k-reciprocal", ["--gallery-mu-swapped", "M"], "--gallery-mu-swapped"),
        ("simple", ["--mu", "M", "--gallery-mu", "M"], "does not use --gallery-mu"),
        ("k-reciprocal", ["--image-root", "r"], "--image-root"),
        ("k-reciprocal", ["--bits", "12"], "--sheet"),
        ("k-reciprocal", ["--sheet", "s.jpg"], "--sheet"),
        ("k-reciprocal", ["--alpha", "0.1"], "--mu"),
        ("k-reciprocal", ["--overwrite"], "needs -o"),
        ("k-reciprocal", ["--seed", "1"], "--protocol"),
        ("k-reciprocal", ["--top-k", "0"], "must be at least 1"),
        ("k-reciprocal", ["--k1", "0"], "--k1"),
        ("k-reciprocal", ["--lambda", "nan"], "--lambda"),
        ("k-reciprocal", ["--num-query", "100000"], "100000 queries asked for"),
        ("k-reciprocal", ["--unknown"], "unrecognized arguments"),
        ("magic", [], "invalid choice: 'magic'"),
    ],
)
def test_users_mistakes_are_one_line_and_write_nothing(
    feature_file: Path,
    tmp_path: Path,
    refuse: Refuse,
    method: str,
    options: list[str],
    message: str,
) -> None:
    output = [] if "--overwrite" in options else ["-o", tmp_path / "out"]
    refuse("rerank", feature_file, "--method", method, *options, *output, names=message)


@pytest.mark.parametrize(
    ("row", "value", "message"), [(3, np.nan, "row 3 holds NaN"), (0, 0, "row 0 is all zero")]
)
def test_features_that_the_kernels_refuse(
    feature_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    row: int,
    value: float,
    message: str,
) -> None:
    features = load_features(feature_file).features.copy()
    features[row] = value
    file = without(feature_file, features=features)
    assert rerank(file, "k-reciprocal", "-o", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ca_jaccard_needs_camids(feature_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rerank(without(feature_file, "camids"), "ca-jaccard") == 2
    assert "ca-jaccard needs camids" in capsys.readouterr().err


def test_the_first_candidates_alone(
    feature_file: Path, mu_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = dict(np.load(mu_file))
    first = tmp_path / "first.npz"
    np.savez(first, **{name: values[:, :3] for name, values in stored.items()})
    found = []
    for options in (["--mu", first], ["--mu", mu_file, "--candidates", 3]):
        assert rerank(feature_file, "simple", "--json", *options) == 0
        summary = json.loads(capsys.readouterr().out)
        assert summary["counts"]["mu_candidates"] == 3
        found.append(summary["metrics"])
    assert found[0] == found[1]
    assert rerank(feature_file, "simple", "--mu", first, "--candidates", 4) == 2
    assert "--candidates 4" in capsys.readouterr().err


def test_output_is_checked_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert rerank(tmp_path / "missing.npz", "none", "-o", tmp_path) == 2
    assert "not empty" in capsys.readouterr().err


def test_output_is_checked_again_before_writing(
    feature_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    work = _pipeline.rerank

    def work_while_another_writes(*given: Any, **settings: Any) -> _pipeline.Outcome:
        out.mkdir()
        (out / "theirs.txt").write_text("theirs")
        return work(*given, **settings)

    monkeypatch.setattr(_pipeline, "rerank", work_while_another_writes)
    assert rerank(feature_file, "none", "-o", out) == 2
    assert [path.name for path in out.iterdir()] == ["theirs.txt"]


def test_missing_device_is_exit_code_3(
    feature_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import murank_kernels

    def refuse(*_args: object, **_settings: object) -> None:
        raise murank_kernels.DeviceUnavailableError("no such device")

    monkeypatch.setattr(murank_kernels, "k_reciprocal_blocks", refuse)
    assert rerank(feature_file, "k-reciprocal", "--kernels", "cuda") == 3
    assert capsys.readouterr().err == "murank: error: no such device\n"


def test_a_bug_keeps_its_traceback(feature_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import murank_kernels

    monkeypatch.setattr(murank_kernels, "k_reciprocal_blocks", lambda *_a, **_k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rerank(feature_file, "k-reciprocal")


def test_an_interrupt_leaves_nothing(
    feature_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_args: object, **_arrays: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupt)
    assert rerank(feature_file, "none", "-o", tmp_path / "out") == 130
    assert capsys.readouterr().err == "murank: interrupted\n"
    assert not (tmp_path / "out").exists()


def test_features_without_paths(
    feature_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing shows them, unless images are looked at."""
    count = load_features(feature_file).num_query
    file = without(feature_file, "paths", num_query=count)
    assert rerank(file, "ecn", "-o", tmp_path / "out") == 0
    assert load_ranking(tmp_path / "out").query_paths.tolist() == [str(i) for i in range(count)]
    capsys.readouterr()
    assert rerank(file, "ecn", "--sheet", tmp_path / "s.png") == 2
    assert f"{file} has no paths" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["k-reciprocal", "ecn", "simple"])
def test_what_mu_did_is_told_apart(
    feature_file: Path, mu_file: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    def metrics(*options: object) -> dict[str, Any]:
        assert rerank(feature_file, method, "--json", *options) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["metrics"]
        return found

    found = metrics("--mu", mu_file, "--align-cameras", "off")
    without_it = "before"
    if method != "simple":
        alone = metrics("--align-cameras", "off")
        assert alone["without_mu"] is None
        assert found["without_mu"] == alone["after"]
        without_it = "without_mu"
    assert found["without_mu"] == found[without_it]
    assert rerank(feature_file, method, "--mu", mu_file, "--align-cameras", "off") == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("by mu"))
    added = 100 * (found["after"]["mAP"] - found["without_mu"]["mAP"])
    assert line.split()[2] == f"{added:+.2f}"


def test_progress_goes_to_a_file(
    feature_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "p.jsonl", tmp_path / "out"
    assert rerank(feature_file, "k-reciprocal", "-o", out, "--progress", out / "p.jsonl") == 2
    assert str(out / "p.jsonl") in capsys.readouterr().err
    assert rerank(feature_file, "k-reciprocal", "-o", out, "--progress", file) == 0
    last = {line["stage"]: line for line in map(json.loads, file.read_text().splitlines())}
    assert {"k-reciprocal: neighbours", "k-reciprocal: re-ranking"} <= last.keys()
    assert all(line["done"] == line["total"] for line in last.values())
    before = file.read_bytes()
    assert rerank(feature_file, "none", "--progress", feature_file) == 2
    assert str(feature_file) in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("method", "options", "named"),
    [
        ("none", ["--neighbours", "ivf"], "--neighbours"),
        ("none", ["--workers", "2"], "--workers"),
        ("ca-jaccard", ["--neighbours", "ivf"], "ca-jaccard"),
        ("k-reciprocal", ["--recall", "0.9"], "--neighbours ivf"),
        ("k-reciprocal", ["--neighbours", "ivf", "--workers", "2"], "--workers"),
        ("k-reciprocal", ["--neighbours", "ivf", "--kernels", "cuda"], "--kernels"),
        ("k-reciprocal", ["--workers", "2", "--kernels", "cuda"], "--kernels"),
        ("k-reciprocal", ["--workers", "ray"], "--workers"),
        ("k-reciprocal", ["--workers", "0"], "--workers"),
        ("k-reciprocal", ["--neighbours", "ivf", "--recall", "1.5"], "--recall"),
        ("k-reciprocal", ["--neighbours", "ivf", "--recall", "nan"], "--recall"),
    ],
)
def test_ways_to_find_neighbours_that_do_not_fit(
    feature_file: Path, refuse: Refuse, method: str, options: list[str], named: str
) -> None:
    refuse("rerank", feature_file, "--method", method, *options, names=named)


def test_without_faiss(
    feature_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert rerank(feature_file, "k-reciprocal", "--neighbours", "ivf") == 3
    err = capsys.readouterr().err
    assert "pip install 'murank[faiss]'" in err
    assert err.count("\n") == 1

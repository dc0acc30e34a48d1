"""Rules of what is dropped from rankings: every verb that evaluates has the figures of one loop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusal import Refuse

from murank import (
    InputError,
    Labels,
    Ranking,
    evaluate_truncated,
    load_features,
    load_ranking,
)
from murank.cli import main
from murank.datasets.labels import JUNK_PID
from murank.rerank import verdicts
from murank.rerank.verdicts import Verdicts
from murank.sheet import rows_of
from murank_kernels.evaluation import drop_rule

NUM_QUERY, NUM_GALLERY = 12, 50
Pair = Callable[[int, int], bool]
# float64 means of at most 50 values a query, and of 12 queries: 62 sums of values up to 1 a query,
# each rounded by at most half an eps of 2.2e-16, of a mean of values up to 1: 7e-15.
EXACT = 1e-14


@pytest.fixture
def arrays() -> dict[str, Any]:
    random = np.random.default_rng(3)
    count = NUM_QUERY + NUM_GALLERY
    return {
        "features": random.normal(size=(count, 6)).astype(np.float32),
        "pids": random.integers(0, 9, count), "camids": random.integers(1, 5, count),
        "clothes": random.integers(0, 3, count), "num_query": np.array(NUM_QUERY),
    }  # fmt: skip


@pytest.fixture
def file(tmp_path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(tmp_path / "f.npz", **arrays)
    return tmp_path / "f.npz"


def mask_file(file: Path) -> Path:
    mask = np.random.default_rng(4).random((NUM_QUERY, NUM_GALLERY)) < 0.4
    np.savez(file.with_name("mask.npz"), drop=mask)
    return file.with_name("mask.npz")


def dropped(arrays: dict[str, Any], name: str, mask: Any) -> Pair:
    """Say of query i and gallery image j whether a rule drops it, in so many words."""

    def same(key: str) -> Pair:
        return lambda i, j: bool(arrays[key][i] == arrays[key][NUM_QUERY + j])

    person, camera, worn = same("pids"), same("camids"), same("clothes")

    def place(i: int, j: int) -> bool:
        seen = {int(arrays["camids"][i]), int(arrays["camids"][NUM_QUERY + j])}
        return len(seen) == 1 or seen == {2, 3}

    rules: dict[str, Pair] = {
        "same-camera": lambda i, j: person(i, j) and camera(i, j),
        "same-clothes": lambda i, j: person(i, j) and (camera(i, j) or worn(i, j)),
        "other-clothes": lambda i, j: person(i, j) and (camera(i, j) or not worn(i, j)),
        "whole-camera": camera,
        "places": place,
        "none": lambda _i, _j: False,
        "mask": lambda i, j: bool(mask[i, j]),
    }
    return rules[name]


def looped(arrays: dict[str, Any], is_dropped: Pair) -> tuple[float, int]:
    """Return mAP and the number of queries with a match left."""
    rows = arrays["features"] / np.linalg.norm(arrays["features"], axis=1, keepdims=True)
    precisions = []
    for i in range(NUM_QUERY):
        gaps = np.linalg.norm(rows[NUM_QUERY:] - rows[i], axis=1)
        order = [j for j in np.argsort(gaps) if not is_dropped(i, j)]
        hits = [arrays["pids"][NUM_QUERY + j] == arrays["pids"][i] for j in order]
        places = np.flatnonzero(hits) + 1
        if len(places):
            precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
    return float(np.mean(precisions)), len(precisions)


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json", *(["--quiet"] if words[0] != "inspect" else [])]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


RULES = {name: ["--drop", name] for name in drop_rule.RULES} | {
    "places": ["--drop", "whole-camera", "--camera-group", "2,3"]
}  # fmt: skip


@pytest.mark.parametrize("name", [*RULES, "mask"])
def test_every_verb(
    file: Path, arrays: dict[str, Any], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    mask = mask_file(file)
    flags = RULES.get(name, ["--drop", str(mask)])
    wanted, num_valid = looped(arrays, dropped(arrays, name, np.load(mask)["drop"]))
    found = told(capsys, "evaluate", file, *flags)
    assert found["metrics"]["mAP"] == pytest.approx(wanted, abs=EXACT)
    assert found["counts"]["num_valid"] == num_valid
    recorded = found["protocol"]
    assert recorded["drop"].startswith(flags[1])
    assert recorded.get("camera_groups", []) == ([[2, 3]] if name == "places" else [])
    out = file.with_name("out")
    ranked = told(
        capsys, "rerank", file, "--method", "none", *flags, "--align-cameras", "off",
        "--top-k", NUM_GALLERY, "-o", out,
    )  # fmt: skip
    assert ranked["metrics"]["after"]["mAP"] == pytest.approx(wanted, abs=EXACT)
    assert ranked["metrics"]["after"]["num_emptied"] == found["counts"]["num_emptied"]
    assert ranked["protocol"] == recorded
    assert json.loads((out / "summary.json").read_text())["protocol"] == recorded
    again = told(capsys, "evaluate", out, *flags)
    assert again["metrics"]["mAP"] == pytest.approx(wanted, abs=EXACT)
    assert again["counts"] == found["counts"]
    assert again["protocol"] == recorded
    compared = told(capsys, "evaluate", file, "--rerankers", *flags)
    assert compared["rows"][0]["metrics"]["mAP"] == pytest.approx(wanted, abs=EXACT)
    assert (compared["counts"], compared["protocol"]) == (found["counts"], recorded)


def test_align_says_by_what_it_evaluated(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "align", file, "--align-cameras", "mean", "--drop", "same-clothes")
    assert found["protocol"] == {"protocol": "market1501", "drop": "same-clothes"}
    evaluated = told(capsys, "evaluate", file, "--align-cameras", "mean", "--drop", "same-clothes")
    for one, key in (("before", "metrics"), ("aligned", "aligned")):
        wanted = evaluated[key] if key == "metrics" else evaluated[key]["metrics"]
        assert found["metrics"][one]["mAP"] == pytest.approx(wanted["mAP"])
    assert main(["align", str(file), "--drop", "same-clothes", "--align-cameras", "mean"]) == 0
    assert "queries evaluated (market1501, drop same-clothes)" in capsys.readouterr().out


def test_what_is_printed_names_the_rule_and_who_does_not_count(
    file: Path, arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arrays["clothes"][arrays["pids"] == 1] = 0  # so that nothing of this person is left
    arrays["clothes"][3] = -1
    np.savez(file, **arrays)
    is_unknown = arrays["clothes"] < 0
    by_rule = dropped(arrays, "same-clothes", None)
    kept = [
        [j for j in range(NUM_GALLERY) if not by_rule(i, j) and not is_unknown[i]]
        for i in range(NUM_QUERY)
    ]
    q_pids, g_pids = arrays["pids"][:NUM_QUERY], arrays["pids"][NUM_QUERY:]
    assert np.isin(q_pids, g_pids).all()
    count = sum(pid not in g_pids[some] for pid, some in zip(q_pids, kept, strict=True))
    assert 0 < count < NUM_QUERY
    for words in (["evaluate", str(file)], ["rerank", str(file), "--method", "none"]):
        assert main([*words, "--drop", "same-clothes", "--align-cameras", "off"]) == 0
        said = capsys.readouterr().out
        assert "drop same-clothes" in said
        assert f"; {count} left without a match" in said
        assert "1 (query)" in said  # of unknown clothes
    assert main(["evaluate", str(file), "--camera-group", "2,3", "--camera-group", "1,4"]) == 0
    assert "cameras 2+3, 1+4 as one" in capsys.readouterr().out


def test_without_cameras(
    file: Path, arrays: dict[str, Any], capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    wanted, _ = looped(arrays, lambda _i, _j: False)
    del arrays["camids"]
    np.savez(file, **arrays)
    assert told(capsys, "evaluate", file, "--drop", "none")["metrics"]["mAP"] == pytest.approx(
        wanted, abs=EXACT
    )
    distances = file.with_name("d.npz")
    labels = {"q_pids": arrays["pids"][:NUM_QUERY], "g_pids": arrays["pids"][NUM_QUERY:]}
    rows = arrays["features"] / np.linalg.norm(arrays["features"], axis=1, keepdims=True)
    gaps = np.linalg.norm(rows[:NUM_QUERY, None] - rows[NUM_QUERY:], axis=2)
    np.savez(distances, distmat=gaps, **labels)
    assert told(capsys, "evaluate", distances, "--drop", "none")["metrics"]["mAP"] == pytest.approx(
        wanted, abs=EXACT
    )
    for one in (file, distances):
        refuse("evaluate", one, names=f"{one} has no camids")
    compared = told(capsys, "evaluate", file, "--rerankers", "--drop", "none")
    assert [row["name"] for row in compared["rows"]] == ["encoder", "k-reciprocal", "ecn"]
    refuse("evaluate", file, "--rerankers", names=f"{file} has no camids")
    ranked = told(capsys, "rerank", file, "--method", "none")
    assert ranked["metrics"]["after"] is None
    assert "--drop none" in ranked["not_evaluated"]


def test_cameras_that_are_names(
    file: Path, arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = told(capsys, "evaluate", file, "--camera-group", "2,3")["metrics"]["mAP"]
    arrays["camids"] = np.array([f"cam{number}" for number in arrays["camids"]])
    np.savez(file, **arrays)
    assert main(["evaluate", str(file), "--camera-group", "cam2, cam3"]) == 0
    said = capsys.readouterr().out
    assert "cameras cam2+cam3 as one" in said
    assert f"{100 * wanted:.2f}" in said


def test_refused(file: Path, arrays: dict[str, Any], refuse: Refuse) -> None:
    mask = mask_file(file)
    np.savez(file.with_name("small.npz"), drop=np.zeros((3, 4), bool))
    np.savez(file.with_name("numbers.npz"), drop=np.zeros((NUM_QUERY, NUM_GALLERY)))
    del arrays["clothes"]
    bare = file.with_name("bare.npz")
    np.savez(bare, **arrays)
    for verb in (["evaluate", file], ["rerank", file, "--method", "none"], ["align", file]):
        for flags, named in (
            (["--drop", "clothes"], "--drop"),
            (["--drop", file.with_name("none.npz")], "none.npz"),
            (["--drop", file], "f.npz"),  # holds no mask
            (["--drop", file.with_name("small.npz")], "small.npz"),
            (["--drop", file.with_name("numbers.npz")], "numbers.npz"),
            (["--drop", "none", "--camera-group", "2,3"], "--camera-group"),
            (["--drop", mask, "--camera-group", "2,3"], "--camera-group"),
            (["--camera-group", "2"], "--camera-group"),
            (["--camera-group", "2,2"], "--camera-group"),
            (["--camera-group", "2,9"], "--camera-group must name cameras that took images: 9"),
            (["--camera-group", "2,cam3"], "cam3"),
            (["--camera-group", "2,,3"], "--camera-group"),
            (["--camera-group", "2,3", "--camera-group", "3,4"], "--camera-group"),
        ):
            refuse(*verb, *flags, names=named)
        refuse(verb[0], bare, *verb[2:], "--drop", "same-clothes", names="bare.npz")


def test_pairs_are_counted_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(6)
    labels = Labels(*(random.integers(-1, 5, size) for size in (20, 70, 20, 70)))
    for protocol in ({}, {"drop": "none"}, {"junk": "drop"}, {"drop": "whole-camera"}):
        whole = Verdicts(labels, protocol).num_matches
        assert whole.any()
        rule = protocol.get("drop")
        for query, count in enumerate(whole):
            q_pid, q_camid = labels.as_arguments()[0][query], np.asarray(labels.q_camids)[query]
            same = (labels.g_pids == q_pid) & (
                (np.asarray(labels.g_camids) != q_camid) | (rule == "none")
            )
            is_junk = "junk" in protocol and q_pid == JUNK_PID
            assert count == (0 if is_junk else same.sum())
        monkeypatch.setattr(verdicts, "_AT_ONCE", 9)
        np.testing.assert_array_equal(Verdicts(labels, protocol).num_matches, whole)
        monkeypatch.undo()


def test_what_mu_tells_and_what_sheets_show_is_by_the_rule(
    file: Path, arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = arrays["features"] / np.linalg.norm(arrays["features"], axis=1, keepdims=True)
    near = np.argsort(-rows[:NUM_QUERY] @ rows[NUM_QUERY:].T, axis=1)[:, :20]
    mu = np.random.default_rng(5).random(near.shape).astype(np.float32)
    np.savez(file.with_name("mu.npz"), probs=1 - mu, gallery_indices=near)
    rule = dropped(arrays, "same-clothes", None)
    person = arrays["pids"][:NUM_QUERY, None] == arrays["pids"][NUM_QUERY:]
    kept = [(i, j) for i in range(NUM_QUERY) for j in near[i] if not rule(i, j)]
    found = told(
        capsys, "evaluate", file, "--rerankers", "--mu", file.with_name("mu.npz"),
        "--drop", "same-clothes",
    )["among_candidates"]  # fmt: skip
    same = sum(bool(person[pair]) for pair in kept)
    assert (found["same"], found["different"]) == (same, len(kept) - same)
    features = load_features(file)
    names = np.array([str(i) for i in range(NUM_GALLERY)])
    ranking = Ranking(
        near, np.zeros(near.shape, np.float32), names[:NUM_QUERY], names,
        **vars(features.labels),
    )  # fmt: skip
    shown = rows_of(
        ranking, ranking, None, range(NUM_QUERY), n_shown=20, protocol={"drop": "same-clothes"}
    )
    for i, row in enumerate(shown):
        for j, cell in zip(near[i], row.before, strict=True):
            wanted = "junk" if rule(i, j) else "match" if person[i, j] else "other"
            assert cell.verdict == wanted


def test_a_ranking_from_python(file: Path, arrays: dict[str, Any]) -> None:
    out = file.with_name("out")
    assert main(["rerank", str(file), "--method", "none", "-o", str(out), "--quiet",
                 "--align-cameras", "off"]) == 0  # fmt: skip
    ranking = load_ranking(out)
    mask = np.load(mask_file(file))["drop"]
    for drop in (mask, lambda queries: mask[queries]):
        found = evaluate_truncated(ranking, drop=drop)
        assert found.mAP == pytest.approx(looped(arrays, dropped(arrays, "mask", mask))[0])
    with pytest.raises(InputError, match="drop"):
        evaluate_truncated(ranking, drop=mask[:3])
    with pytest.raises(InputError, match="by a mask"):
        evaluate_truncated(ranking, drop=np.ones_like(mask))

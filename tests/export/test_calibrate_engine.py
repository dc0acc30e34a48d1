"""`murank calibrate` on an exported engine: what is measured is what is served from then on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folder import edit_manifest, relist
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from murank import Engine, InputError
from murank.cli import main
from murank.folder.manifest import engine_sha256

Crops = list[NDArray[np.uint8]]
Entry = dict[str, str]
Run = Callable[..., tuple[int, str, str]]
NUM = 16  # images: each is a query once, with every other


@pytest.fixture
def images(crops: Crops, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index, crop in enumerate(crops[:NUM]):
        Image.fromarray(crop).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """All pairs; which of them match is drawn."""
    random = np.random.default_rng(3)
    entries = [
        {"query": f"{q}.png", "candidate": f"{c}.png", "match": str(random.choice(["Yes", "No"]))}
        for q in range(NUM)
        for c in range(NUM)
        if q != c
    ]
    return save(tmp_path / "pairs.json", entries)


def save(file: Path, entries: list[Entry]) -> Path:
    file.write_text(json.dumps(entries))
    return file


def labels(pairs: Path) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The images [n,2] of each pair, and whether they match [n]."""
    entries = json.loads(pairs.read_text())
    places = [[int(e[key].removesuffix(".png")) for key in ("query", "candidate")] for e in entries]
    return np.array(places), np.array([e["match"] == "Yes" for e in entries])


def mu_of_all(engine: Path, crops: Crops) -> NDArray[np.float64]:
    """Mu [NUM,NUM] as `rank` gives it."""
    loaded = Engine.from_pretrained(engine, providers="cpu")
    mu = np.empty((NUM, NUM))
    for query in range(NUM):
        for row in loaded.rank(crops[query], crops[:NUM]):
            mu[query, row.corpus_id] = row.mu
    return mu


@pytest.fixture
def calibrate(
    engine_copy: Path, pairs: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run it as a user: exit code, stdout, stderr. FMR of at most 5 % unless told otherwise."""

    def run(*options: object, file: Path = pairs) -> tuple[int, str, str]:
        arguments = ["calibrate", engine_copy, "--pairs", file, "--image-root", images, "--quiet"]
        target = [] if {"--eer", "--fnmr", "--fmr"} & set(map(str, options)) else ["--fmr", "0.05"]
        code = main([*map(str, arguments), "--providers", "cpu", *target, *map(str, options)])
        return code, *capsys.readouterr()

    return run


def said(result: tuple[int, str, str]) -> Any:
    code, out, err = result
    assert (code, err) == (0, "")
    return json.loads(out)


def test_what_is_measured_is_what_is_served(
    calibrate: Run, engine_copy: Path, pairs: Path, crops: Crops
) -> None:
    before = mu_of_all(engine_copy, crops)
    found = said(calibrate("--json"))
    after = mu_of_all(engine_copy, crops)
    temperature, threshold = found["temperature"], found["threshold"]
    logit = np.log(before / (1 - before))
    np.testing.assert_allclose(after, 1 / (1 + np.exp(-logit / temperature)), atol=1e-5)

    places, same = labels(pairs)
    mu = after[places[:, 0], places[:, 1]]
    # Batches of other sizes add up in another order: a mu this close to it may fall either way.
    clear = np.abs(mu - threshold) > 1e-5
    assert clear.sum() >= len(mu) - 3
    for kind, wrong in (("fmr", (mu <= threshold) & ~same), ("fnmr", (mu > threshold) & same)):
        assert abs(found[kind]["errors"] - wrong[clear].sum()) <= (~clear).sum()
    assert found["fmr"]["rate"] <= 0.05
    assert found["counts"] == {
        "same": same.sum(), "different": (~same).sum(), "skipped": 0, "repeated": 0,
    }  # fmt: skip
    grid = np.geomspace(0.05, 20, 500)
    assert nll(logit[tuple(places.T)], same, temperature) <= 1e-9 + min(
        nll(logit[tuple(places.T)], same, one) for one in grid
    )
    assert found["after"]["nll"] == pytest.approx(
        nll(logit[tuple(places.T)], same, temperature), abs=1e-5
    )
    assert found["after"]["nll"] < found["before"]["nll"]
    assert found["det"]["fmr"][-1] == 1
    assert len(found["det"]["threshold"]) == len(found["det"]["fnmr"]) <= 200


def nll(logit: NDArray[np.float64], same: NDArray[np.bool_], temperature: float) -> float:
    terms = np.logaddexp(0, np.where(same, 1, -1) * logit / temperature)
    return float((terms[same].mean() + terms[~same].mean()) / 2)


def test_it_still_verifies_and_its_pin_has_changed(
    calibrate: Run, engine_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = engine_sha256(engine_copy)
    code, out, err = calibrate()
    assert (code, err) == (0, "")
    new = engine_sha256(engine_copy)
    assert new != old
    assert out.splitlines()[-2:] == [
        f"sha256     {new}", f"note: before it was {old}; change what pins this engine",
    ]  # fmt: skip
    assert out.startswith(f"{NUM * (NUM - 1)} pairs: ")
    for text in ("temperature 1 ", "AUC ", "EER ", "threshold  mu <= ", "(FMR at most 5 %)"):
        assert text in out
    verify = ["inspect", "--verify", str(engine_copy), "--providers", "cpu", "--quiet"]
    assert main([*verify, "--sha256", new]) == 0
    assert "scorer   ok" in capsys.readouterr().out
    assert main([*verify, "--sha256", old]) == 2


def test_verify_asks_at_the_temperature_of_the_export(
    calibrate: Run, engine_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Golden answers of an engine that was exported with another tau than 1 are kept, too."""
    golden = load_file(engine_copy / "golden.safetensors")
    golden["log_odds"] = golden["log_odds"] / 2.5
    save_file(golden, engine_copy / "golden.safetensors")
    relist(engine_copy, "golden.safetensors")
    edit_manifest(engine_copy, lambda data: data["scorer"].update(tau=2.5))
    verify = ["inspect", "--verify", str(engine_copy), "--providers", "cpu", "--quiet"]
    assert main(verify) == 0
    capsys.readouterr()
    said(calibrate("--json"))
    assert main(verify) == 0
    edit_manifest(engine_copy, lambda data: data["calibration"].update(exported_tau=1.0))
    assert main(verify) == 4


def test_the_same_pairs_give_the_same_engine(calibrate: Run, engine_copy: Path) -> None:
    first = said(calibrate("--json"))
    code, out, err = calibrate()
    assert (code, out) == (2, "")
    assert "is calibrated already; pass --overwrite" in err
    other = said(calibrate("--json", "--eer", "--overwrite"))
    assert other["sha256"] != first["sha256"]
    again = said(calibrate("--json", "--overwrite"))
    assert again.pop("sha256_before") == other["sha256"]
    first.pop("sha256_before")
    assert again == first
    assert engine_sha256(engine_copy) == first["sha256"]


def test_dry_run_leaves_the_engine(calibrate: Run, engine_copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    raw, files = (engine_copy / "manifest.json").read_bytes(), sorted(engine_copy.rglob("*"))
    dry = said(calibrate("--json", "--dry-run", "--plot", tmp_path / "det.png"))
    assert dry["sha256"] is None
    assert (engine_copy / "manifest.json").read_bytes() == raw
    assert sorted(engine_copy.rglob("*")) == files
    with Image.open(tmp_path / "det.png") as plot:
        assert plot.format == "PNG"
    assert calibrate("--dry-run")[1].endswith("nothing was written (--dry-run)\n")
    wet = said(calibrate("--json"))
    assert {**wet, "sha256": None} == dry


def test_images_that_cannot_be_used(
    calibrate: Run, engine_copy: Path, images: Path, pairs: Path, tmp_path: Path
) -> None:
    (images / "3.png").write_bytes(b"no image")
    entries = json.loads(pairs.read_text())
    missing = [
        {"query": "0.png", "candidate": f"none{i}.png", "match": "Yes"} for i in range(6)
    ] + entries[:2]
    file = save(tmp_path / "more.json", [*entries, *missing])
    found = said(calibrate("--json", "--dry-run", file=file))
    assert found["counts"]["skipped"] == 2 * (NUM - 1) + 6
    assert found["counts"]["repeated"] == 2
    named = {one["path"]: one["pairs"] for one in found["skipped"]}
    assert named == {"3.png": 2 * (NUM - 1), **{f"none{i}.png": 1 for i in range(6)}}
    code, out, _ = calibrate("--dry-run", file=file)
    assert code == 0
    assert f"skipped: {2 * (NUM - 1) + 6} pairs, for want of images (7):\n" in out
    assert "repeated in the file, counted once: 2 pairs\n" in out
    assert out.count("  /") == 5
    assert "  ... (--json lists all)\n" in out
    raw = (engine_copy / "manifest.json").read_bytes()
    code, out, err = calibrate("--strict", file=file)
    assert (code, out) == (2, "")
    assert err.endswith("(--strict)\n")
    assert (engine_copy / "manifest.json").read_bytes() == raw


def test_too_few_pairs_are_left(calibrate: Run, images: Path, engine_copy: Path) -> None:
    for index in range(5, NUM):
        (images / f"{index}.png").unlink()
    raw = (engine_copy / "manifest.json").read_bytes()
    code, _, err = calibrate()
    assert code == 2
    assert "pairs labelled No cannot tell whether FMR at most 5 % holds: 60 are needed" in err
    assert (engine_copy / "manifest.json").read_bytes() == raw


def test_another_engine_than_the_one_pinned(calibrate: Run) -> None:
    code, _, err = calibrate("--sha256", "0" * 64)
    assert code == 2
    assert "is another engine" in err


def test_progress_is_not_on_stdout(
    engine_copy: Path, pairs: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["calibrate", engine_copy, "--pairs", pairs, "--image-root", images, "--json"]
    assert main([*map(str, arguments), "--eer", "--providers", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == {"kind": "eer", "value": None}


def parted(engine: Engine, crops: Crops, threshold: float) -> tuple[Any, Crops, Any]:
    """A query, candidates on both sides of the threshold, and their ranking."""
    for place, query in enumerate(crops):
        candidates = [*crops[:place], *crops[place + 1 :]]
        everyone: Any = engine.rank(query, candidates)
        if everyone[2].mu <= threshold < everyone[-1].mu:
            return query, candidates, everyone
    raise AssertionError("the threshold parts no query's candidates")


def test_candidates_within_a_threshold(calibrate: Run, engine_copy: Path, crops: Crops) -> None:
    found = said(calibrate("--json", "--fnmr", "0.5"))
    engine = Engine.from_pretrained(engine_copy, providers="cpu")
    threshold = found["threshold"]
    query, candidates, everyone = parted(engine, crops[:12], threshold)
    within = [row for row in everyone if row.mu <= threshold]
    assert engine.rank(query, candidates, threshold="calibrated") == within
    assert engine.rank(query, candidates, threshold=threshold) == within
    assert engine.rank(query, candidates, 1, threshold=threshold) == within[:1]
    worst = [candidates[row.corpus_id] for row in everyone[len(within) :]]
    assert engine.rank(query, worst, threshold="calibrated") == []
    assert engine.rank(query, candidates, threshold=1) == everyone
    assert engine.rank(query, candidates, threshold=0.0) == []
    at = everyone[2].mu
    assert engine.rank(query, candidates, threshold=at) == everyone[:3]
    with pytest.raises(InputError, match=r"calibrated with order='given', not 'both': pass a"):
        engine.rank(query, candidates[:2], order="both", threshold="calibrated")
    assert len(engine.rank(query, candidates[:2], order="both", threshold=1.0)) == 2


def test_thresholds_that_cannot_be(engine: Engine, crops: Crops) -> None:
    with pytest.raises(InputError, match="no calibrated threshold: run murank calibrate, or pass"):
        engine.rank(crops[0], crops[1:3], threshold="calibrated")
    bad: list[Any] = [-0.1, 1.1, float("nan"), "0.5", "best"]
    for threshold in bad:
        with pytest.raises(InputError, match="threshold"):
            engine.rank(crops[0], crops[1:3], threshold=threshold)

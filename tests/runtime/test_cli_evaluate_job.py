import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_job import write_job
from refusal import Refuse

from murank import load_features, load_mu
from murank.cli import main
from murank.cli import progress as _progress
from murank.rerank.comparison import compare

RERANKERS = ("k-reciprocal", "ecn", "ca-jaccard")
COLUMNS = ("mAP", "rank-1", "rank-5")
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def gallery_mu_file(feature_file: Path) -> Path:
    """Mu-distances between gallery images: of each, the next three."""
    count = load_features(feature_file).num_gallery
    indices = (np.arange(count)[:, None] + np.arange(1, 4)) % count
    file = feature_file.with_name("mu_gallery.npz")
    probs = np.random.default_rng(2).random(indices.shape)
    np.savez(file, probs=probs, gallery_indices=indices)
    return file


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def as_json(*arguments: object) -> dict[str, Any]:
        assert main(["evaluate", *map(str, arguments), "--rerankers", "--json"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        found: dict[str, Any] = json.loads(out)
        assert found.pop("file") == str(arguments[0])
        return found

    return as_json


def rows(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, float]]:
    return {(row["name"], row["fused"]): row["metrics"] for row in found["rows"]}


def test_json(feature_file: Path, mu_file: Path, gallery_mu_file: Path, run: Run) -> None:
    found = run(feature_file, "--mu", mu_file, "--gallery-mu", gallery_mu_file)
    assert found["schema_version"] == 1
    assert found["protocol"] == {"protocol": "market1501", "drop": "same-camera"}
    expected = compare(load_features(feature_file), load_mu(mu_file), load_mu(gallery_mu_file))
    assert found["rows"] == [
        {
            "name": line.name, "fused": line.fused, "metrics": line.metrics,
            "gain": None if line.gain is None else line.gain.to_json(),
        }
        for line in expected
    ]  # fmt: skip
    assert found["alignment"]["level"] == "off", "fewer than 50 gallery images a camera"
    assert len(found["rows"]) == 11


def test_the_encoder_is_as_evaluate_says(
    feature_file: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ((), ("--protocol", "cuhk03", "--repeats", "3", "--seed", "5")):
        found = run(feature_file, *options)
        main(["evaluate", str(feature_file), *options, "--json"])
        evaluated = json.loads(capsys.readouterr().out)
        assert found["rows"][0]["metrics"] == pytest.approx(evaluated["metrics"])
        assert found["protocol"] == evaluated["protocol"]


@pytest.mark.parametrize("method", RERANKERS)
def test_each_line_is_what_rerank_reports(
    feature_file: Path,
    mu_file: Path,
    gallery_mu_file: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    mu = ("--mu", str(mu_file))
    both = (*mu, "--gallery-mu", str(gallery_mu_file))
    found = rows(run(feature_file, *both, "--alpha", "0.4"))
    for fused, options in (
        ("none", ()),
        ("mu", (*mu, "--alpha", "0.4")),
        ("gallery", (*both, "--alpha", "0.4")),
    ):
        out = feature_file.with_name(f"out-{fused}")
        main(["rerank", str(feature_file), "--method", method, *options,
              "-o", str(out), "--top-k", "9999"])  # fmt: skip
        capsys.readouterr()
        main(["evaluate", str(out), "--json"])
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        assert {key: found[method, fused][key] for key in metrics} == pytest.approx(metrics)


def test_gallery_mu_alone(feature_file: Path, gallery_mu_file: Path, run: Run) -> None:
    found = rows(run(feature_file, "--gallery-mu", gallery_mu_file, "--alpha", 0.3))
    assert len(found) == 7
    assert ("ecn", "gallery only") in found


def test_a_folder_is_its_files(
    feature_file: Path, mu_file: Path, gallery_mu_file: Path, run: Run
) -> None:
    """The folder holds features.npz, mu.npz and mu_gallery.npz."""
    folder = write_job(feature_file.parent)
    named: list[object] = [feature_file]
    every = run(folder)
    assert every == run(*named, "--mu", mu_file, "--gallery-mu", gallery_mu_file)
    write_job(folder, "features.npz", "mu.npz")
    with_mu = run(folder, "--alpha", 0.5)
    assert with_mu == run(*named, "--mu", mu_file, "--alpha", 0.5)
    alone = run(folder, "--no-mu")
    write_job(folder, "features.npz")
    assert alone == run(folder) == run(*named)
    assert [len(found["rows"]) for found in (every, with_mu, alone)] == [11, 8, 4]


def test_num_query(feature_file: Path, run: Run) -> None:
    count = load_features(feature_file).num_query
    fewer = run(feature_file, "--num-query", count - 4)
    assert fewer != run(feature_file, "--num-query", count)
    expected = compare(load_features(feature_file, count - 4))
    assert [row["metrics"] for row in fewer["rows"]] == [line.metrics for line in expected]


def cells(line: str) -> list[str]:
    return re.findall(r"(?<= )[-+]?[0-9]+\.[0-9]{2}\b", line)


def test_table_without_mu(feature_file: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(run(feature_file))
    assert main(["evaluate", str(feature_file), "--rerankers"]) == 0
    head, header, *lines = capsys.readouterr().out.splitlines()[: len(found) + 2]
    assert "queries evaluated" in head
    assert header.split() == list(COLUMNS)
    assert [line.split()[0] for line in lines] == ["encoder", *RERANKERS]
    for line in lines:
        metrics = found[line.split()[0], "none"]
        assert cells(line) == [f"{100 * metrics[key]:.2f}" for key in COLUMNS]
    assert len({len(line) for line in (header, *lines)}) == 1


def test_table_with_mu(
    feature_file: Path,
    mu_file: Path,
    gallery_mu_file: Path,
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = rows(run(write_job(feature_file.parent)))
    assert mu_file.is_file()
    assert gallery_mu_file.is_file()
    assert main(["evaluate", str(feature_file.parent)]) == 0
    _, header, *lines = capsys.readouterr().out.splitlines()[: len(found) + 2]
    assert header.split() == [*COLUMNS, "mu", "adds:", *COLUMNS]
    suffixes = {"none": "", "mu": " + mu", "gallery": " + mu, gallery mu"}
    for line, ((name, fused), metrics) in zip(lines, found.items(), strict=True):
        assert re.match(rf"{re.escape(name + suffixes[fused])}  +[0-9]", line)
        expected = [f"{100 * metrics[key]:.2f}" for key in COLUMNS]
        if fused != "none":
            before = found[name, "none"]
            expected += [f"{100 * (metrics[key] - before[key]):+.2f}" for key in COLUMNS]
            assert len(line) == len(header)
            for column in COLUMNS:  # figures end where the names of their columns end
                for place in re.finditer(rf"{column}\b", header):
                    assert line[place.end() - 1].isdigit()
                    assert line[place.end() : place.end() + 1] in ("", " ")
        assert cells(line) == expected


def test_progress(
    feature_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "_EVERY_LOG", 0.0)
    assert main(["evaluate", str(feature_file), "--rerankers"]) == 0
    said = capsys.readouterr().err.splitlines()
    for method in RERANKERS:
        assert any(line.startswith(f"{method}: ") for line in said)
    assert main(["evaluate", str(feature_file), "--rerankers", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_is_written(feature_file: Path, mu_file: Path, run: Run) -> None:
    write_job(feature_file.parent)
    before = {path: path.stat().st_mtime_ns for path in feature_file.parent.iterdir()}
    run(feature_file.parent)
    assert {path: path.stat().st_mtime_ns for path in feature_file.parent.iterdir()} == before
    assert mu_file in before


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("JOB|FILE", "--gallery-mu", "--alpha", "--protocol", "exit codes"):
        assert word in text


def test_what_is_compared_is_needed(feature_file: Path, mu_file: Path, refuse: Refuse) -> None:
    for arguments in ((), ("--mu", mu_file)):
        refuse("evaluate", *arguments, names="JOB|FILE")
    refuse("evaluate", write_job(feature_file.parent), "--num-query", 3, names="--num-query")


def test_what_goes_with_re_rankers(
    feature_file: Path, mu_file: Path, tmp_path: Path, refuse: Refuse
) -> None:
    job, distances = write_job(feature_file.parent), tmp_path / "distances.npz"
    ids = np.arange(3)
    np.savez(distances, distmat=np.ones((3, 3)), q_pids=ids, g_pids=ids, q_camids=ids,
             g_camids=ids + 1)  # fmt: skip
    refuse("evaluate", job, "--max-rank", 5, names="--max-rank")
    refuse("evaluate", feature_file, "--mu", mu_file, "--max-rank", 5, names="--max-rank")
    for options in (["--rerankers"], ["--mu", mu_file], ["--no-mu"], ["--alpha", 0.1]):
        refuse("evaluate", distances, *options, names=str(options[0]))


def test_alpha_without_mu(feature_file: Path, refuse: Refuse) -> None:
    for source in (write_job(feature_file.parent), feature_file):
        refuse("evaluate", source, "--alpha", 0.5, names="--alpha")


def test_alpha_out_of_range(feature_file: Path, mu_file: Path, refuse: Refuse) -> None:
    for alpha in (1.5, -1, "nan"):
        refuse("evaluate", feature_file, "--mu", mu_file, f"--alpha={alpha}", names="alpha")


def test_a_folder_without_features(tmp_path: Path, refuse: Refuse) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        refuse("evaluate", folder, names=str(folder))


def test_files_that_cannot_be_used(
    feature_file: Path, mu_file: Path, tmp_path: Path, refuse: Refuse
) -> None:
    none = tmp_path / "none.npz"
    refuse("evaluate", none, names=str(none))
    refuse("evaluate", mu_file, names=str(mu_file))
    refuse("evaluate", feature_file, "--mu", none, names=str(none))
    refuse("evaluate", feature_file, "--gallery-mu", none, names=str(none))
    refuse("evaluate", feature_file, "--num-query", 9999, names="9999 queries asked for")
    refuse("evaluate", feature_file, "--gallery-mu", mu_file, names="--gallery-mu")


def test_features_that_cannot_be_evaluated(feature_file: Path, refuse: Refuse) -> None:
    arrays = dict(np.load(feature_file))
    np.savez(feature_file, **{key: arrays[key] for key in arrays if key != "pids"})
    write_job(feature_file.parent)
    refuse("evaluate", feature_file.parent, names="pids")
    np.savez(feature_file, **{**arrays, "camids": np.zeros_like(arrays["camids"])})
    refuse("evaluate", feature_file.parent, names="from another camera")


def test_options_of_the_protocol(feature_file: Path, refuse: Refuse) -> None:
    refuse(
        "evaluate", feature_file, "--seed", 3,
        names="--seed",
    )  # fmt: skip


def test_the_prompt_order_of_the_run(
    feature_file: Path, mu_file: Path, run: Run, tmp_path: Path
) -> None:
    """What the last run fused counts, not what lies beside it from an earlier one."""
    folder = tmp_path / "ranking"
    folder.mkdir()
    shutil.copyfile(feature_file, folder / "features.npz")
    with np.load(mu_file) as arrays:
        given, candidates = arrays["probs"], arrays["gallery_indices"]
    swapped = given[:, ::-1].copy()
    np.savez(folder / "mu.npz", probs=given, gallery_indices=candidates)
    np.savez(folder / "mu_swapped.npz", probs=swapped, gallery_indices=candidates)
    mean = tmp_path / "mean.npz"
    np.savez(mean, probs=(given + swapped) / 2, gallery_indices=candidates)
    for used, like in (
        (["mu.npz"], folder / "mu.npz"),
        (["mu_swapped.npz"], folder / "mu_swapped.npz"),
        (["mu.npz", "mu_swapped.npz"], mean),
    ):
        write_job(folder, "features.npz", *used)
        wanted = rows(run(folder / "features.npz", "--mu", like))
        assert rows(run(folder)) == wanted
    (folder / "job.json").write_text("[]")
    assert main(["evaluate", str(folder)]) == 2


def test_a_folder_whose_files_may_be_of_two_runs(
    feature_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on other images was stopped after features.npz, before mu.npz."""
    folder = tmp_path / "out"
    (folder / ".murank-batch").mkdir(parents=True)
    shutil.copy(feature_file, folder / "features.npz")
    assert main(["evaluate", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(folder) in err
    assert err.count("\n") == 1

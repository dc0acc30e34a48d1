"""A proposal kept with its engine: who takes it, and who must not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import NUM_QUERY, ImageJob

from murank import InputError
from murank.calibration import calibrate, store_calibration, store_defaults
from murank.cli import main
from murank.folder.manifest import (
    MuDefaults,
    engine_sha256,
    manifest_bytes,
    manifest_sha256,
    read_manifest,
)
from murank.rerank.intervals import Gain
from murank.rerank.proposal import Proposal

GAIN = Gain(0.021, 0.01, 0.03, NUM_QUERY)


def proposal(method: str = "k-reciprocal", alpha: float = 0.3, candidates: int = 2) -> Proposal:
    return Proposal(method, alpha, candidates, GAIN, {}, people=NUM_QUERY, folds=4)


def store(job: ImageJob, **given: Any) -> str:
    asked = manifest_sha256(read_manifest(job.engine).answering)
    return store_defaults(job.engine, proposal(**given), asked=asked, alignment="off")


def summary(job: ImageJob, *options: object, method: str = "k-reciprocal") -> dict[str, Any]:
    """What `murank rerank` says of a job that is scored as the engine has it by default."""
    assert job.run("--overwrite") == 0
    return ranked(job, *options, method=method)


def ranked(job: ImageJob, *options: object, method: str = "k-reciprocal") -> dict[str, Any]:
    assert job.rank("-o", job.out, "--overwrite", *options, method=method) == 0
    found: dict[str, Any] = json.loads((job.out / "summary.json").read_text())
    return found


def used(found: dict[str, Any]) -> tuple[float, int]:
    return found["parameters"]["alpha"], found["counts"]["mu_candidates"]


def test_what_is_stored(job: ImageJob) -> None:
    before = read_manifest(job.engine)
    assert store(job) == engine_sha256(job.engine)
    found = read_manifest(job.engine).mu_defaults["k-reciprocal"]
    assert (found.alpha, found.candidates, found.gain) == (0.3, 2, GAIN.mean)
    assert (found.low, found.high, found.queries) == (GAIN.low, GAIN.high, GAIN.num_queries)
    store(job, method="ecn", alpha=0.0, candidates=0)
    after = read_manifest(job.engine)
    assert set(after.mu_defaults) == {"k-reciprocal", "ecn"}
    assert replace(after, mu_defaults={}) == before
    assert "mu_defaults" not in json.loads(manifest_bytes(before))


def test_rerank_takes_it(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    store(job)
    found = summary(job)
    assert used(found) == (0.3, 2)
    assert any("own default" in note for note in found["notes"])
    given = ranked(job, "--alpha", 0.3, "--candidates", 2)
    assert given["metrics"] == found["metrics"]
    assert not any("own default" in note for note in given["notes"])
    mu = job.out / "mu.npz"
    for options in (["--alpha", 0.5], ["--candidates", 3], ["--mu", mu]):
        named = dict(zip(options[::2], options[1::2], strict=True))
        expected = (named.get("--alpha", 0.2), named.get("--candidates", 10))
        assert used(ranked(job, *options)) == expected
    assert used(ranked(job, method="ecn")) == (0.2, 10)
    assert job.run("--overwrite", "--gallery-candidates", 2) == 0
    assert used(ranked(job)) == (0.2, 10), "it was proposed without gallery mu"
    assert ranked(job, "--no-mu")["counts"]["mu_candidates"] == 0
    capsys.readouterr()


def test_as_many_are_asked_as_were_stored(job: ImageJob) -> None:
    store(job, candidates=12)
    assert job.run("-o", job.out) == 0
    assert job.report()["candidates"] == 10, "the whole gallery"
    assert used(ranked(job)) == (0.3, 10)
    assert job.run("--overwrite", "--candidates", 3) == 0
    found = ranked(job)
    assert used(found) == (0.2, 3)
    (note,) = [one for one in found["notes"] if "own default" in one]
    assert "--candidates" in note


def test_it_is_of_one_alignment(job: ImageJob) -> None:
    store(job)  # proposed without
    assert job.run("--align-cameras", "mean") == 0
    assert used(ranked(job)) == (0.2, 10)
    assert used(ranked(job, "--align-cameras", "off")) == (0.3, 2)


def test_rerank_leaves_mu_out(job: ImageJob) -> None:
    store(job, alpha=0.0, candidates=0)
    store(job, method="simple", alpha=0.0, candidates=0)
    found = summary(job)
    assert found["counts"]["mu_candidates"] == 0
    assert any("own default" in note for note in found["notes"])
    assert found["metrics"] == ranked(job, "--no-mu")["metrics"]
    assert ranked(job, "--candidates", 3)["counts"]["mu_candidates"] == 3
    assert used(ranked(job, method="simple"))[1] == 10, "it cannot do without"


def test_what_was_made_before_is_used_after(job: ImageJob) -> None:
    """A proposal changes no feature and no answer; a calibration changes answers alone."""
    assert job.run("--candidates", 3) == 0
    for method, alpha, candidates in (("k-reciprocal", 0.3, 2), ("ecn", 0.4, 3)):
        store(job, method=method, alpha=alpha, candidates=candidates)
        assert job.run("--candidates", 3, "--overwrite") == 0
        assert (job.done, job.loaded) == ({}, [])
        found = ranked(job)
        assert used(found) == (0.3, 2)
        assert found["job"]["engine"]["sha256"] == engine_sha256(job.engine)
    calibrate_engine(job)
    assert job.run("--candidates", 3, "--overwrite") == 0
    assert job.report()["stages"]["features.npz"] == "reused"
    assert job.done == {"given": 3 * NUM_QUERY}


def test_a_stopped_run_goes_on_after_a_proposal(job: ImageJob) -> None:
    job.stop_at = ("given", 2 * 2)  # two queries are a part
    options = ("-o", job.out, "--candidates", 2)
    assert job.run(*options) == 130
    job.stop_at = None
    store(job)
    assert job.run(*options) == 0
    assert job.done == {"given": 2 * (NUM_QUERY - 2)}


def test_from_an_older_run_to_an_engine_with_proposals(
    job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    assert job.run("-o", job.out, "--candidates", 3) == 0

    def keep(folder: Path) -> int:
        return main(["evaluate", str(folder), "--propose", "--store", str(job.engine)])

    assert keep(job.out) == 0
    assert job.run("-o", other, "--candidates", 3) == 0  # by the engine as it is now
    assert keep(other) == 0
    assert keep(job.out) == 0
    calibrate_engine(job)  # another engine to what these runs were asked
    capsys.readouterr()
    for folder in (job.out, other):
        assert keep(folder) == 2
        assert "again" in capsys.readouterr().err


def test_from_a_run_to_its_engine(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--candidates", 3) == 0
    capsys.readouterr()
    for method in ("simple", "ecn"):  # the first changes the engine, and not what it answers
        words = [
            "evaluate",
            str(job.out),
            "--propose",
            method,
            "--store",
            str(job.engine),
            "--json",
        ]
        assert main(words) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["sha256"] == engine_sha256(job.engine)
        kept = read_manifest(job.engine).mu_defaults[method]
        assert kept.alpha == found["proposal"]["alpha"]
        assert kept.candidates == found["proposal"]["candidates"]
    assert main(["inspect", str(job.engine)]) == 0
    assert "held out" in capsys.readouterr().out


def test_refused(job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--candidates", 3) == 0
    folder, engine = str(job.out), str(job.engine)
    features = [str(job.out / "features.npz"), "--mu", str(job.out / "mu.npz")]
    for words, says in (
        ([folder, "--store", engine], "--propose"),
        ([*features, "--propose", "--store", engine], "folder"),
        ([folder, "--propose", "--store", str(tmp_path / "none")], "none"),
    ):
        capsys.readouterr()
        assert main(["evaluate", *words]) == 2
        assert says in capsys.readouterr().err
    before = read_manifest(job.engine)
    with pytest.raises(InputError, match="again"):
        store_defaults(job.engine, proposal(), asked="ab" * 32, alignment="off")
    assert read_manifest(job.engine) == before


def test_calibration_makes_it_void(job: ImageJob) -> None:
    before = read_manifest(job.engine)
    store(job)
    calibrate_engine(job)
    after = read_manifest(job.engine)
    assert after.mu_defaults == {}
    assert after.exported == before != after.answering == after


def calibrate_engine(job: ImageJob) -> None:
    random = np.random.default_rng(0)
    odds = np.concatenate([random.normal(-2, 3, 300), random.normal(3, 3, 320)])
    measured = calibrate(odds, np.arange(620) < 300)
    manifest = read_manifest(job.engine)
    store_calibration(
        job.engine, manifest, engine_sha256(job.engine), measured, pairs_sha256="ab" * 32
    )


@pytest.mark.parametrize(("alpha", "candidates"), [(0.0, 3), (0.3, 0)])
def test_half_a_proposal(alpha: float, candidates: int) -> None:
    with pytest.raises(InputError, match="together"):
        MuDefaults(
            alpha=alpha, candidates=candidates, gain=0.0, low=0.0, high=0.0, queries=1, people=1,
            alignment="off", engine_sha256="ab" * 32, murank_version="0",
        )  # fmt: skip

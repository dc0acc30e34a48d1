"""A proposal kept with its engine: who takes it, and who must not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import NUM_QUERY, ImageJob

from murank import InputError
from murank._intervals import Gain
from murank._proposal import Proposal
from murank.calibration import store_defaults
from murank.calibration._store import _calibrated
from murank.cli import main
from murank.engine.manifest import (
    MuDefaults,
    engine_sha256,
    manifest_bytes,
    read_manifest,
)

GAIN = Gain(0.021, 0.01, 0.03, NUM_QUERY)


def proposal(method: str = "k-reciprocal", alpha: float = 0.3, candidates: int = 2) -> Proposal:
    return Proposal(method, alpha, candidates, GAIN, {}, people=NUM_QUERY, folds=4)


def store(job: ImageJob, **given: Any) -> str:
    return store_defaults(
        job.engine, proposal(**given), asked=engine_sha256(job.engine), alignment="off"
    )


def summary(job: ImageJob, *options: object) -> dict[str, Any]:
    assert job.run("-o", job.out, "--overwrite", *options) == 0
    found: dict[str, Any] = json.loads((job.out / "summary.json").read_text())
    return found


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
    assert (found["parameters"]["alpha"], found["top_k_candidates"]) == (0.3, 2)
    assert job.done["given"] == 2 * NUM_QUERY
    assert any("own default" in note for note in found["notes"])
    given = summary(job, "--alpha", 0.3, "--top-k-candidates", 2)
    assert given["metrics"] == found["metrics"]
    assert not any("own default" in note for note in given["notes"])
    for options, expected in (
        (["--alpha", 0.5], (0.5, 10)), (["--top-k-candidates", 3], (0.2, 3)),
        (["--method", "ecn"], (0.2, 10)), (["--gallery-mu", 2], (0.2, 10)),
    ):  # fmt: skip
        named = summary(job, *options)
        assert (named["parameters"]["alpha"], named["top_k_candidates"]) == expected
    capsys.readouterr()


def test_rerank_leaves_mu_out(job: ImageJob) -> None:
    store(job, alpha=0.0, candidates=0)
    store(job, method="simple", alpha=0.0, candidates=0)
    found = summary(job)
    assert job.done["given"] == 0
    assert found["top_k_candidates"] is None
    assert found["metrics"] == summary(job, "--no-mu")["metrics"]
    assert summary(job, "--top-k-candidates", 3)["top_k_candidates"] == 3
    assert summary(job, "--method", "simple")["top_k_candidates"] == 10, "it cannot do without"


def test_from_a_run_to_its_engine(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--top-k-candidates", 3) == 0
    capsys.readouterr()
    for method in ("simple", "ecn"):  # the first changes the engine, and not what it answers
        words = ["compare", str(job.out), "--propose", method, "--store", str(job.engine), "--json"]
        assert main(words) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["sha256"] == engine_sha256(job.engine)
        kept = read_manifest(job.engine).mu_defaults[method]
        assert kept.alpha == found["proposal"]["alpha"]
        assert kept.candidates == found["proposal"]["candidates"]
    assert main(["inspect", str(job.engine)]) == 0
    assert "held out" in capsys.readouterr().out


def test_refused(job: ImageJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("-o", job.out, "--top-k-candidates", 3) == 0
    folder, engine = str(job.out), str(job.engine)
    features = ["--features", str(job.out / "features.npz"), "--mu", str(job.out / "mu.npz")]
    for words, says in (
        ([folder, "--store", engine], "--propose"),
        ([*features, "--propose", "--store", engine], "folder"),
        ([folder, "--propose", "--store", str(tmp_path / "none")], "none"),
    ):
        capsys.readouterr()
        assert main(["compare", *words]) == 2
        assert says in capsys.readouterr().err
    before = read_manifest(job.engine)
    with pytest.raises(InputError, match="again"):
        store_defaults(job.engine, proposal(), asked="ab" * 32, alignment="off")
    assert read_manifest(job.engine) == before


def test_calibration_makes_it_void(job: ImageJob) -> None:
    from murank.calibration import calibrate

    store(job)
    random = np.random.default_rng(0)
    odds = np.concatenate([random.normal(-2, 3, 300), random.normal(3, 3, 320)])
    measured = calibrate(odds, np.arange(620) < 300)
    changed = _calibrated(read_manifest(job.engine), measured, "ab" * 32)
    assert changed.mu_defaults == {}


@pytest.mark.parametrize(("alpha", "candidates"), [(0.0, 3), (0.3, 0)])
def test_half_a_proposal(alpha: float, candidates: int) -> None:
    with pytest.raises(InputError, match="together"):
        MuDefaults(
            alpha=alpha, candidates=candidates, gain=0.0, low=0.0, high=0.0, queries=1, people=1,
            alignment="off", engine_sha256="ab" * 32, murank_version="0",
        )  # fmt: skip

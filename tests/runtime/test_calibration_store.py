"""A calibration in the manifest: what may stand there, and how it is put there."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folder import edit_manifest, make_engine

from murank import InputError, OutputError, __version__
from murank.calibration import Calibrated, ThresholdTarget, calibrate, store_calibration
from murank.cli import main
from murank.engine import engine as engine_module
from murank.engine.engine import Engine
from murank.folder.integrity import check_engine
from murank.folder.manifest import (
    Manifest,
    engine_sha256,
    manifest_bytes,
    read_manifest,
    read_manifest_once,
)

PAIRS = "5" * 64


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    make_engine(tmp_path / "engine")
    return tmp_path / "engine"


def measure(target: ThresholdTarget | None = None, scale: float = 1) -> Calibrated:
    random = np.random.default_rng(0)
    odds = np.concatenate([random.normal(-2, 3, 300), random.normal(3, 3, 320)])
    return calibrate(scale * odds, np.arange(620) < 300, target=target, prior=0.3)


def store(engine: Path, measured: Calibrated) -> str:
    sha256 = engine_sha256(engine)
    return store_calibration(engine, read_manifest(engine), sha256, measured, pairs_sha256=PAIRS)


def test_what_is_stored(engine: Path) -> None:
    before, measured = json.loads((engine / "manifest.json").read_bytes()), measure()
    assert store(engine, measured) == engine_sha256(engine)
    after = json.loads((engine / "manifest.json").read_bytes())
    point = measured.point
    assert after["calibration"] == {
        "precision": "fp16", "temperature": measured.temperature, "exported_tau": 1.5,
        "threshold": point.threshold, "target": "fmr", "target_value": 0.01, "prior": 0.3,
        "fmr": 3 / 320, "fnmr": point.fnmr.errors / 300, "same_pairs": 300,
        "different_pairs": 320, "pairs_sha256": PAIRS, "murank_version": __version__,
    }  # fmt: skip
    assert after["scorer"].pop("tau") == measured.temperature
    assert before["scorer"].pop("tau") == 1.5
    assert before.pop("calibration") is None
    del after["calibration"]
    assert after == before
    assert list(after) == list(before)


def test_calibrated_again(engine: Path) -> None:
    """The temperature at export is never lost, and the same pairs give the same bytes."""
    first = store(engine, measure())
    store(engine, measure(ThresholdTarget("eer", None), scale=3))
    found = read_manifest(engine)
    assert found.calibration is not None
    assert (found.calibration.target, found.calibration.target_value) == ("eer", None)
    assert found.calibration.exported_tau == 1.5
    assert found.exported_scorer == replace_tau(found, 1.5)
    assert store(engine, measure()) == first


def replace_tau(manifest: Manifest, tau: float) -> Any:
    assert manifest.scorer is not None
    return replace(manifest.scorer, tau=tau)


def test_an_engine_that_is_not_calibrated_is_as_it_was_exported(engine: Path) -> None:
    manifest = read_manifest(engine)
    assert manifest.exported_scorer is manifest.scorer


def test_an_engine_that_has_changed_meanwhile(engine: Path) -> None:
    manifest, sha256 = read_manifest(engine), engine_sha256(engine)
    edit_manifest(engine, lambda data: data.update(murank_version="0.1.1"))
    raw = (engine / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="has changed since it was loaded; calibrate it again"):
        store_calibration(engine, manifest, sha256, measure(), pairs_sha256=PAIRS)
    assert (engine / "manifest.json").read_bytes() == raw


def test_no_scorer(engine: Path) -> None:
    alone = replace(read_manifest(engine), scorer=None)
    (engine / "manifest.json").write_bytes(manifest_bytes(alone))
    with pytest.raises(InputError, match="no scorer of image pairs to calibrate"):
        store(engine, measure())


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_folder_stays_as_it_was(engine: Path, mode: int) -> None:
    (engine / "manifest.json").chmod(mode)
    before = sorted(engine.rglob("*"))
    store(engine, measure())
    assert sorted(engine.rglob("*")) == before
    assert (engine / "manifest.json").stat().st_mode & 0o777 == mode


def test_nothing_changes_if_writing_fails(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, before = (engine / "manifest.json").read_bytes(), sorted(engine.rglob("*"))

    def full(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        store(engine, measure())
    assert (engine / "manifest.json").read_bytes() == raw
    assert sorted(engine.rglob("*")) == before


def test_what_a_killed_calibration_left_is_swept(engine: Path) -> None:
    before = sorted(engine.rglob("*"))
    (engine / ".murank-0123456789abcdef-manifest.json").write_text("half")
    check_engine(engine)
    store(engine, measure())
    assert sorted(engine.rglob("*")) == before


def test_readers_find_a_whole_folder_all_the_time(engine: Path) -> None:
    stop, checked = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            checked.append(check_engine(engine, hashes=False))

    one, other = measure(), measure(ThresholdTarget("eer", None))
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for _ in range(20):
            store(engine, one)
            store(engine, other)
        stop.set()
        reader.result()  # raises what it met
    assert len({manifest.calibration for manifest in checked}) > 1


def test_the_sha256_of_a_loaded_engine_is_that_of_its_manifest(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is calibrated while it is being loaded."""
    before, sha256 = read_manifest_once(engine)

    def check(folder: Path, **options: Any) -> Manifest:
        store(engine, measure())
        return check_engine(folder, **options)

    monkeypatch.setattr(engine_module, "check_engine", check)
    loaded = Engine.from_pretrained(engine, parts=[])
    assert engine_sha256(engine) != sha256
    assert (loaded.manifest, loaded.sha256) == (before, sha256)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("precision", "fp32", "calibration is of fp32, the engine is fp16"),
        ("precision", "fp64", "calibration.precision must be one of fp32, fp16, bf16"),
        ("temperature", 2.0, "scorer.tau is not calibration.temperature"),
        ("temperature", 0, "calibration.temperature must be above 0, got 0"),
        ("exported_tau", -1, "calibration.exported_tau must be above 0, got -1"),
        ("threshold", 1.5, "calibration.threshold must be in 0..1, got 1.5"),
        ("threshold", None, "calibration.threshold must be a number, got None"),
        ("target", "far", "calibration.target must be one of fmr, fnmr, eer, got 'far'"),
        ("target", "eer", "calibration.target_value must be a number, or null for eer"),
        ("target_value", None, "calibration.target_value must be a number, or null for eer"),
        ("fmr", -0.1, "calibration.fmr must be in 0..1, got -0.1"),
        ("same_pairs", 0, "calibration.same_pairs must be at least 1, got 0"),
        ("pairs_sha256", "x", "calibration.pairs_sha256 must be a sha256"),
        ("date", "today", "calibration has an unknown key 'date'"),
    ],
)
def test_wrong_values_are_named(engine: Path, key: str, value: Any, message: str) -> None:
    store(engine, measure())
    edit_manifest(engine, lambda data: data["calibration"].update({key: value}))
    with pytest.raises(InputError) as caught:
        read_manifest(engine)
    assert str(caught.value).startswith(f"{engine / 'manifest.json'}: {message}")


def test_temperature_and_tau_cannot_drift_apart(engine: Path) -> None:
    store(engine, measure())
    edit_manifest(engine, lambda data: data["scorer"].update(tau=1.5))
    with pytest.raises(InputError, match=r"scorer\.tau is not calibration\.temperature"):
        read_manifest(engine)


def test_calibration_of_nothing(engine: Path) -> None:
    store(engine, measure())
    manifest = read_manifest(engine)
    with pytest.raises(InputError, match="calibration is there, but no scorer"):
        replace(manifest, scorer=None)
    with pytest.raises(InputError, match="calibration is of fp16, the engine is int8"):
        replace(manifest, precision="int8")


@pytest.mark.parametrize(
    ("target", "chosen"), [(None, "FMR at most 1 %"), (ThresholdTarget("eer", None), "FMR = FNMR")]
)
def test_inspect(
    engine: Path, capsys: pytest.CaptureFixture[str], target: ThresholdTarget | None, chosen: str
) -> None:
    measured = measure(target)
    store(engine, measured)
    assert main(["inspect", str(engine)]) == 0
    out = capsys.readouterr().out
    point = measured.point
    for text in (
        f"calibration\n  temperature  {measured.temperature:.6g}, at export 1.5\n",
        f"  threshold    mu <= {point.threshold:.6g} ({chosen})\n",
        f"  errors       FMR {100 * point.fmr.value:.2f} %, FNMR {100 * point.fnmr.value:.2f} %\n",
        "  pairs        300 of one person (prior 0.3), 320 of two, 555555555555; fp16, murank "
        f"{__version__}\n",
        f"tau {measured.temperature:g}, at most 64 pairs a run",
    ):
        assert text in out
    assert max(map(len, out.replace(str(engine), "").splitlines())) <= 100
    assert main(["inspect", str(engine), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["manifest"]["calibration"]["threshold"] == point.threshold

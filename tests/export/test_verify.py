"""`inspect --verify`: a whole engine passes, a changed one does not, whoever wrote its manifest."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folder import edit_manifest, relist
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from murank.backends.onnx import session
from murank.cli import main

Arrays = dict[str, NDArray[Any]]
Verify = Callable[..., tuple[int, str, str]]
Capture = pytest.CaptureFixture[str]
OFFER = "does not answer here as it did at export"


@pytest.fixture
def verify(engine_copy: Path, capsys: Capture) -> Verify:
    """Run it as a user on a copy of an engine: exit code, stdout, stderr."""

    def run(*options: str) -> tuple[int, str, str]:
        code = main(["inspect", "--verify", str(engine_copy), "--providers", "cpu", *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def change(engine: Path, name: str, edit: Callable[[Arrays], Arrays]) -> None:
    """Change tensors of a file and let the manifest agree, as an attacker or a bug would."""
    save_file(edit(load_file(engine / name)), engine / name)
    relist(engine, name)


def test_a_fresh_engine(verify: Verify) -> None:
    code, out, err = verify("--quiet")
    assert (code, err) == (0, "")
    scorer = out.splitlines()[-1]
    assert scorer.startswith("scorer   ok       largest difference ")
    assert scorer.endswith("(tolerance 1e-03) on CPUExecutionProvider")


def test_json(verify: Verify) -> None:
    code, out, err = verify("--json", "--quiet", "--threads", "1")
    assert (code, err) == (0, "")
    said = json.loads(out)
    (row,) = said["replay"]
    assert len(said["manifest"]["files"]) == 7
    assert 0 <= row.pop("largest") <= 1e-3
    assert row == {
        "part": "scorer", "passed": True, "tolerance": 1e-3, "providers": ["CPUExecutionProvider"],
        "fault": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("fp16", 5e-2), ("int8", 3e-1)],
)
def test_fp16_and_int8_engines(
    engine_folder: Callable[..., Path], capsys: Capture, precision: str, tolerance: float
) -> None:
    folder = engine_folder("qwen2_vl", "prefix_first", precision)
    assert (
        main(["inspect", "--verify", str(folder), "--json", "--quiet", "--providers", "cpu"]) == 0
    )
    (row,) = json.loads(capsys.readouterr().out)["replay"]
    assert row["passed"]
    assert row["tolerance"] == tolerance


@pytest.mark.parametrize("name", ["onnx/decoder.onnx", "prompt.safetensors", "golden.safetensors"])
def test_a_tampered_file_is_found_before_anything_is_loaded(
    verify: Verify,
    engine_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    def loaded() -> None:
        raise AssertionError("onnxruntime was asked for")

    monkeypatch.setattr(session, "onnxruntime", loaded)
    content = bytearray((engine_copy / name).read_bytes())
    content[-1] ^= 1
    (engine_copy / name).write_bytes(content)
    code, out, err = verify("--quiet")
    assert (code, out) == (2, "")
    assert f"{name}: its content differs from its sha256" in err
    assert err.count("\n") == 1


def moved(arrays: Arrays) -> Arrays:
    """Prompt embeddings that say something else."""
    return {**arrays, "suffix_text": -arrays["suffix_text"]}


def not_a_number(arrays: Arrays) -> Arrays:
    return {**arrays, "suffix_text": np.full_like(arrays["suffix_text"], np.nan)}


@pytest.mark.parametrize("edit", [moved, not_a_number])
def test_another_prompt_answers_differently(
    verify: Verify,
    engine_copy: Path,
    edit: Callable[[Arrays], Arrays],
) -> None:
    change(engine_copy, "prompt.safetensors", edit)
    code, out, err = verify("--quiet")
    assert code == 4
    assert "scorer   DIFFERS" in out
    assert f"engine: scorer {OFFER}" in err
    assert err.count("\n") == 1
    code, out, err = verify("--json", "--quiet")
    assert code == 4
    (row,) = json.loads(out)["replay"]
    assert not row["passed"]
    if edit is not_a_number:
        assert row["largest"] is None  # JSON has no NaN
    else:
        assert row["largest"] > 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_golden_answers_that_are_not_those(verify: Verify, engine_copy: Path, value: float) -> None:
    def edit(arrays: Arrays) -> Arrays:
        odds = arrays["log_odds"].copy()
        odds[1] = value if value != 3 else odds[1] + value
        return {**arrays, "log_odds": odds}

    change(engine_copy, "golden.safetensors", edit)
    code, _, err = verify("--quiet")
    assert code == 4
    assert OFFER in err


@pytest.mark.parametrize("name", ["query", "candidates", "log_odds"])
def test_golden_arrays_that_are_missing(verify: Verify, engine_copy: Path, name: str) -> None:
    change(
        engine_copy,
        "golden.safetensors",
        lambda arrays: {key: value for key, value in arrays.items() if key != name},
    )
    code, _, err = verify("--quiet")
    assert code == 2
    assert f"golden.safetensors lacks {name}" in err


def test_golden_answers_of_another_number(verify: Verify, engine_copy: Path) -> None:
    change(engine_copy, "golden.safetensors", lambda a: {**a, "log_odds": a["log_odds"][:1].copy()})
    code, _, err = verify("--quiet")
    assert code == 2
    assert "golden values have shape" in err


def test_an_engine_without_golden_images(verify: Verify, engine_copy: Path) -> None:
    def forget(data: dict[str, Any]) -> None:
        data["golden"] = None
        del data["files"]["golden.safetensors"]

    (engine_copy / "golden.safetensors").unlink()
    edit_manifest(engine_copy, forget)
    code, _, err = verify("--quiet")
    assert code == 2
    assert "no golden images to replay" in err


def test_a_graph_that_cannot_be_loaded(verify: Verify, engine_copy: Path) -> None:
    """Its weights are cut off, and the manifest says so too."""
    data = engine_copy / "onnx/decoder.onnx.data"
    data.write_bytes(data.read_bytes()[:1000])
    relist(engine_copy, "onnx/decoder.onnx.data")
    code, out, err = verify("--quiet")
    assert (code, out) == (2, "")
    assert "decoder.onnx could not be loaded by onnxruntime" in err
    assert err.count("\n") == 1


def test_what_is_no_engine(tmp_path: Path, capsys: Capture) -> None:
    for folder, message in (
        (tmp_path, "has no manifest.json"),
        (tmp_path / "x", "no such folder"),
    ):
        assert main(["inspect", "--verify", str(folder), "--quiet"]) == 2
        assert message in capsys.readouterr().err


def test_progress_is_not_on_stdout(verify: Verify) -> None:
    code, out, _ = verify("--json")
    assert code == 0
    json.loads(out)


@pytest.mark.parametrize(
    ("key", "value"), [("tau", 2.0), ("preprocessing", {"resample": "nearest"})]
)
def test_a_manifest_that_was_edited(
    verify: Verify, engine_copy: Path, key: str, value: Any
) -> None:
    """What no hash covers is part of the answers: temperature, and how images are resized."""

    def edit(data: dict[str, Any]) -> None:
        scorer = data["scorer"]
        scorer[key] = {**scorer[key], **value} if isinstance(value, dict) else value

    edit_manifest(engine_copy, edit)
    code, _, err = verify("--quiet")
    assert (code, OFFER in err) == (4, True)


def test_another_engine_than_the_one_pinned(verify: Verify, engine_copy: Path) -> None:
    pin = hashlib.sha256((engine_copy / "manifest.json").read_bytes()).hexdigest()
    code, out, _ = verify("--quiet", "--sha256", pin)
    assert (code, out.splitlines()[1]) == (0, f"sha256 {pin}")
    code, out, err = verify("--quiet", "--sha256", "0" * 64)
    assert (code, out) == (2, "")
    assert f"is another engine: its sha256 is {pin}" in err

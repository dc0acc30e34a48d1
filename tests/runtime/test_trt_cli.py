"""`murank build`."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from engine_folder import edit_manifest
from trt_fakes import FakeGpu, FakeTensorRT
from wide_engine import ENGINE

from murank.backends.trt import cuda as _cuda
from murank.cli import main


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT())
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(_cuda, "open_gpu", lambda _index=0: FakeGpu())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(ENGINE, tmp_path / "engine"))


def test_for_a_person(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(engine), "--candidates", "20"]) == 0
    out, err = capsys.readouterr()
    assert "error" not in err  # a slow machine tells its progress
    out = re.sub(r"built in \d+ s", "built in 0 s", out)
    (folder,) = (engine.parent / "cache" / "murank" / "plans").glob("*/*")
    for text in (
        "for tensorrt 10.3.0 on Fake Orin, compute capability 8.7, driver for CUDA 12.6\n",
        "  encoder       0.0 MiB  built in 0 s (one, batch)\n",
        "  decoder       0.0 MiB  built in 0 s (prefill, scoring)\n",
        f"in {folder}\nrun with --providers tensorrt-plans\n",
    ):
        assert text in out
    assert main(["build", str(engine), "--candidates", "20", "--quiet"]) == 0
    assert capsys.readouterr().out.count("kept") == 3


def test_for_a_script(engine: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = [
        "--parts", "scorer", "--max-queries", "4", "--workspace-mb", "64", "--expect-dtype", "fp32",
        "--tf32", "--backend", "tensorrt", "--timing-cache", str(tmp_path / "timings"), "--rebuild",
        "--json", "--quiet", "--plans", str(tmp_path / "shared"),
    ]  # fmt: skip
    assert main(["build", str(engine), *options]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert Path(found["folder"]).parents[1] == tmp_path / "shared"
    assert Path(found["folder"]).name == found["fingerprint"]
    assert found["target"]["compute_capability"] == "8.7"
    assert [plan["name"] for plan in found["plans"]] == ["vision", "decoder"]
    for plan in found["plans"]:
        assert not plan["kept"]
        assert plan["bytes"] == (Path(found["folder"]) / f"{plan['name']}.plan").stat().st_size
    record = json.loads((Path(found["folder"]) / "record.json").read_text())["plans"]["decoder"]
    assert record["flags"] == {"types": "strong", "tf32": True, "workspace_mb": 64}
    assert record["profiles"]["scoring-many"]["vision"][2].startswith("4x32x")
    assert (tmp_path / "timings").read_bytes() == b"++"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--expect-dtype", "fp8"], 2, "compute capability 8.7) has no fp8 arithmetic"),
        (["--expect-dtype", "int4"], 2, "run murank export again with --dtype int4"),
        (["--expect-dtype", "fp16"], 2, "run murank export again with --dtype fp16"),
        (["--expect-dtype", "fp64"], 2, "invalid choice: 'fp64'"),
        (["--parts", "vision"], 2, "--parts: must be of encoder, scorer"),
        (["--max-queries", "0"], 2, "--max-queries: must be at least 1"),
        (["--candidates", "9999"], 2, "candidates must be in 1..4096"),
        (["--backend", "rtx"], 3, "has tensorrt, and no tensorrt_rtx: install that"),
    ],
)
def test_what_is_refused(
    engine: Path, options: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(engine), *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("murank: error: ")
    assert words in err
    assert err.count("\n") == 1
    assert not (engine.parent / "cache").exists()


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ("engine/t", "lies in the engine's folder, which holds only what its manifest lists"),
        ("engine/onnx/../t", "lies in the engine's folder"),
        ("a folder", "a folder is no file: name one that TensorRT's timings are kept in"),
        ("/proc/t", "cannot write to /proc"),
    ],
)
def test_a_timing_cache_that_cannot_be(
    engine: Path, tmp_path: Path, cache: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before any plan is made."""
    (tmp_path / "a folder").mkdir()
    if cache == "/proc/t" and os.access("/proc", os.W_OK):
        pytest.skip("this user may write anywhere")
    file = tmp_path / cache.replace("engine", engine.name, 1)
    assert main(["build", str(engine), "--timing-cache", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert not (engine.parent / "cache").exists()


def test_the_engine_is_looked_at_before_the_machine(
    engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise AssertionError("the machine was asked for")

    monkeypatch.setattr("murank.cli.build.this_machine", none)
    edit_manifest(engine, lambda data: data.update(precision="int8"))
    for folder, words in ((engine, "is int8: its graphs hold"), (engine / "no", "no such folder")):
        assert main(["build", str(folder)]) == 2
        assert words in capsys.readouterr().err


def test_what_is_no_engine(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(engine / "nowhere")]) == 2
    assert "no such folder; name the folder of an engine" in capsys.readouterr().err
    assert main(["build", str(engine / "onnx")]) == 2
    assert "has no manifest.json" in capsys.readouterr().err


def test_without_a_gpu(
    engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real seam, on a machine that has no PyCUDA."""
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT())
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setattr(_cuda, "_opened", {})
    assert main(["build", str(engine)]) == 3
    assert "pycuda" in capsys.readouterr().err

"""Nothing leaves the box: no file in the home folder, no socket, no telemetry.

What native code does, a patched `socket` of Python would not see: strace is asked where there is
one. The files that telemetry makes show it anywhere.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from murank.cli import main
from murank.doctor import examination as _examine
from murank.machine import telemetry as _telemetry

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "benchmarks" / "miniature" / "engine"
SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CI")
ANY_SOCKET = re.compile(r"AF_INET|\b(?:connect|sendto|sendm?msg)\(")
# urllib3 binds a socket to ::1 when it is imported, to see whether there is IPv6: nothing is sent.
SENT = re.compile(r"\b(?:connect|sendto|sendm?msg)\(")
ASKED = """
import sys
import numpy as np
from murank import Engine
engine = Engine.from_pretrained(sys.argv[1], threads=1)
image = np.zeros((64, 32, 3), np.uint8)
assert engine.mu(image, [image]).shape == (1,)
assert engine.embed([image]).shape[0] == 1
"""
BY_OPENVINO = ASKED.replace("threads=1", "threads=1, providers='openvino', plans=sys.argv[2]")
BUILD_SIDE = """
import importlib, pkgutil
import murank_export
for found in pkgutil.walk_packages(murank_export.__path__, "murank_export."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
import accelerate, optimum.exporters.onnx, peft, transformers, huggingface_hub.constants as hub
assert hub.HF_HUB_OFFLINE and hub.HF_HUB_DISABLE_TELEMETRY
assert transformers.utils.is_offline_mode()
"""
# What Python code does, for where there is no strace.
AUDIT = """
import sys
def _audit(event, arguments):
    assert event not in ("socket.connect", "socket.getaddrinfo", "socket.sendto"), arguments
sys.addaudithook(_audit)
"""


def watched(
    tmp_path: Path, code: str, *arguments: str, refused: re.Pattern[str] = ANY_SOCKET
) -> None:
    """Run the code in a fresh home; nothing may appear there, and no network be asked for."""
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    strace = shutil.which("strace")
    command = [sys.executable, "-c", AUDIT + code, *arguments]
    if strace is not None:
        command = [
            strace,
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-e",
            "trace=network",
            "-o",
            str(trace),
            *command,
        ]
    env = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    env |= {"HOME": str(home), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [str(path) for path in home.rglob("*")] == []
    if strace is not None:
        calls = trace.read_text().splitlines()
        assert [call for call in calls if refused.search(call)] == []


def test_an_engine_answers(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    watched(tmp_path, ASKED, str(ENGINE))


def test_an_engine_answers_by_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    watched(tmp_path, BY_OPENVINO, str(ENGINE), str(tmp_path / "plans"))


def test_the_build_side_is_imported(tmp_path: Path) -> None:
    for name in ("torch", "transformers", "peft", "optimum", "accelerate"):
        pytest.importorskip(name)
    watched(tmp_path, BUILD_SIDE, refused=SENT)


def module(version: str) -> ModuleType:
    made = ModuleType("onnxruntime")
    made.__dict__["__version__"] = version
    return made


def test_an_onnxruntime_imported_before_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", module("1.29.0"))
    monkeypatch.delenv(_telemetry.SWITCH)
    _telemetry.switch_off()
    assert _telemetry.SWITCH not in os.environ  # it would tell the wrong tale
    _telemetry.warn_if_on()
    _telemetry.warn_if_on()
    (told,) = caplog.messages
    assert _telemetry.SWITCH in told
    assert os.environ[_telemetry.SWITCH] == "1"  # children inherit it


@pytest.mark.parametrize("version", ["1.23.2", "1.28.1"])
def test_versions_without_telemetry(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", module(version))
    monkeypatch.delenv(_telemetry.SWITCH)
    _telemetry.warn_if_on()
    assert not caplog.records
    assert os.environ[_telemetry.SWITCH] == "1"


def test_the_switch_is_set_on_import_and_a_users_own_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.delenv(_telemetry.SWITCH)
    _telemetry.switch_off()
    assert _telemetry.is_off()
    monkeypatch.setenv(_telemetry.SWITCH, "0")
    _telemetry.switch_off()
    assert not _telemetry.is_off()


@pytest.mark.parametrize(("value", "word"), [("True", "off"), ("0", "ON")])
def test_doctor_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, word: str
) -> None:
    absent = _examine._ToTry("none", "nothing", "left out", "-")
    monkeypatch.setattr(_examine, "_jobs", lambda *_: [absent])
    monkeypatch.setattr("murank.doctor.Examination.cpu_works", True)
    monkeypatch.setenv(_telemetry.SWITCH, value)
    assert main(["doctor", "--quiet"]) == 0
    assert f"telemetry of onnxruntime: {word}" in capsys.readouterr().out
    assert main(["doctor", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["telemetry_off"] is (word == "off")

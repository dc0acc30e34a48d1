"""What this machine says of itself, and that one which says nothing is no error."""

import os
from pathlib import Path

import pytest

from murank.machine import hardware as _machine


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are found."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    return tmp_path


def tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_memory_of_this_process() -> None:
    resident, peak = _machine.resident_bytes(), _machine.peak_bytes()
    assert resident is not None
    assert peak is not None
    assert 1 << 20 < resident <= peak


def test_proc(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n")
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    assert _machine.peak_bytes(tmp_path) == 2 << 20
    assert _machine.resident_bytes(tmp_path) == 1 << 20
    assert _machine.cpu_model(tmp_path) == "A CPU @ 2 GHz"
    assert _machine.board_model(tmp_path) == "NVIDIA Jetson Orin Nano"


def test_nothing_to_read(tmp_path: Path, tools: Path) -> None:
    del tools
    assert _machine.peak_bytes(tmp_path) is None
    assert _machine.cpu_model(tmp_path) is None
    assert _machine.board_model(tmp_path) is None
    assert _machine.power_mode(tmp_path) is None
    assert _machine.gpu_and_driver() is None
    assert _machine.device_bytes() is None


def test_gpu(tools: Path) -> None:
    used = f'echo "1, 5"; echo "{os.getpid()}, 100"; echo "{os.getpid()}, 28"; echo "2, [N/A]"'
    name = 'echo "NVIDIA T4, 550.54"; echo "NVIDIA T4, 550.54"'
    tool(tools, "nvidia-smi", f'case "$1" in *compute*) {used};; *) {name};; esac')
    assert _machine.gpu_and_driver() == ("NVIDIA T4", "550.54")
    assert _machine.device_bytes() == 128 << 20


def test_a_tool_that_fails(tools: Path) -> None:
    tool(tools, "nvidia-smi", "echo 'NVIDIA-SMI has failed, badly'; exit 9")
    assert _machine.gpu_and_driver() is None


def test_power_mode(tmp_path: Path, tools: Path) -> None:
    governor = tmp_path / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("performance\n")
    assert _machine.power_mode(tmp_path) == "performance"
    tool(tools, "nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")
    assert _machine.power_mode(tmp_path) == "MAXN"


def test_counts() -> None:
    load = _machine.load_average()
    assert load is None or load >= 0

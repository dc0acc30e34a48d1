"""What a machine is said to be: Jetsons, cards without a driver, drivers of any kind."""

import ctypes
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from murank import MachineError
from murank.doctor import gpus as _driver
from murank.doctor import machine_report as _machine
from murank.doctor import packages as _packages
from murank.doctor.child import ProbeAnswer
from murank.doctor.redact import without_paths
from murank.machine.driver import has_driver

ORIN = {"name": "Orin", "compute_capability": "8.7", "memory_bytes": 8 << 30}


class FakeDriver:
    """The calls of libcuda that are used, answered as by a machine with these GPUs."""

    def __init__(self, gpus: list[dict[str, Any]], *, cuda: int = 13020, status: int = 0) -> None:
        self.gpus, self.cuda, self.status = gpus, cuda, status

    def __call__(self, name: str) -> "FakeDriver":
        assert name == "libcuda.so.1"
        return self

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.status

    def cuGetErrorString(self, status: int, text: Any) -> int:
        if status == 100:
            text._obj.value = b"no CUDA-capable device is detected"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.cuda
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index + 10
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:
        name.value = self._of(device)["name"].encode()[: size - 1]
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: ctypes.c_int) -> int:
        memory._obj.value = self._of(device)["memory_bytes"]
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:
        version = self._of(device)["compute_capability"].split(".")
        value._obj.value = int(version[{75: 0, 76: 1}[attribute]])
        return 0

    def _of(self, device: ctypes.c_int) -> dict[str, Any]:
        return self.gpus[device.value - 10]


def test_what_the_driver_tells() -> None:
    two = [ORIN, {"name": "T4", "compute_capability": "7.5", "memory_bytes": 15 << 30}]
    assert _driver.gpus(FakeDriver(two)) == {"cuda": "13.2", "gpus": two}
    assert _driver.gpus(FakeDriver([], cuda=12000)) == {"cuda": "12.0", "gpus": []}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (100, r"no CUDA-capable device is detected \(code 100\)"),
        (803, r"unknown error \(code 803\)"),
    ],
)
def test_a_driver_that_cannot(status: int, said: str) -> None:
    with pytest.raises(MachineError, match=f"NVIDIA's driver says: {said}"):
        _driver.gpus(FakeDriver([], status=status))


def test_no_driver() -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(MachineError, match=r"driver is not installed \(no libcuda\.so\.1\)"):
        _driver.gpus(missing)


@pytest.mark.parametrize("installed", [True, False])
def test_whether_there_is_a_driver(installed: bool) -> None:
    def load(name: str) -> object:
        assert name == "libcuda.so.1"
        if installed:
            return object()  # of which nothing is called: cuInit would start the GPU
        raise OSError(f"{name}: cannot open shared object file")

    assert has_driver(load) == installed


@pytest.mark.parametrize(
    ("text", "release", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\nmore", "36.4.3", "6"),
        ("# R35 (release), REVISION: 6.0, GCID: 1", "35.6.0", "5"),
        ("# R38 (release), REVISION: 2.1, GCID: 1", "38.2.1", "7"),
        ("# R39 (release), REVISION: 2.0, GCID: 1", "39.2.0", "7"),
        ("# R32", "32", None),
        ("nothing known", None, None),
    ],
)
def test_jetson_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, release: str | None, jetpack: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nv_tegra_release").write_text(text)
    assert _machine.l4t_release(tmp_path) == release
    assert _machine.l4t_release(tmp_path / "none") is None
    if release is not None:
        assert _machine.jetpack(release) == jetpack


def test_the_package_of_jetpack_knows_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    tool = tmp_path / "dpkg-query"
    tool.write_text('#!/bin/sh\n[ "$4" = nvidia-jetpack ] && echo 6.2.1+b38\n')
    tool.chmod(0o755)
    assert _machine.jetpack("36.4.4") == "6.2.1"


def test_cards_on_the_bus(tmp_path: Path) -> None:
    assert not _machine.has_nvidia_card(tmp_path)
    for name, vendor, kind in (("0", "0x1234", "0x030000"), ("1", "0x10de", "0x040300")):
        device = tmp_path / "bus/pci/devices" / name
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    assert not _machine.has_nvidia_card(tmp_path)  # another maker's card; the sound of ours
    (tmp_path / "bus/pci/devices/1/class").write_text("0x030200\n")
    assert _machine.has_nvidia_card(tmp_path)


def test_a_machine_with_a_gpu_and_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = ProbeAnswer(works=True, said="asked", more={"cuda": "12.6", "gpus": [ORIN]})
    monkeypatch.setattr(_machine, "ask", lambda _: answer)
    (tmp_path / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3")
    found = _machine.this_machine(tmp_path, tmp_path)
    assert found.gpus == (_machine.ReportedGpu("Orin", "8.7", 8 << 30),)
    assert (found.cuda, found.l4t, found.jetpack) == ("12.6", "36.4.3", "6")
    assert (found.is_jetson, found.why_no_gpu, found.driver) == (True, None, None)
    assert found.cores >= 1
    assert found.memory_bytes > 1 << 28
    for answer, why in (
        (ProbeAnswer(works=True, said="asked", more={"cuda": "12.6", "gpus": []}), "knows no GPU"),
        (ProbeAnswer(works=False, said="it hangs"), "it hangs"),
    ):
        monkeypatch.setattr(_machine, "ask", lambda _, told=answer: told)
        found = _machine.this_machine(tmp_path / "none", tmp_path)
        assert not found.is_jetson
        assert found.why_no_gpu is not None
        assert why in found.why_no_gpu


def pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], modules: set[str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(_packages, "_is_module", modules.__contains__)


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnxruntime": "1.32.0", "cupy-cuda13x": "14.2", "tensorrt-cu13": "10.16"}
    pretend(monkeypatch, versions, {"onnxruntime", "cupy", "pycuda"})
    found = _packages.installed()
    assert (found["onnxruntime"], found["onnxruntime-gpu"]) == ("1.32.0", None)
    assert (found["cupy"], found["tensorrt"], found["torch"]) == ("14.2", "10.16", None)
    assert found["pycuda"] == "installed, version unknown"
    assert _packages.conflicts(found) == []
    assert _packages.distributions("cupy") == ["cupy-cuda13x"]


def test_packages_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("onnxruntime", "onnxruntime-gpu", "cupy-cuda12x", "cupy-cuda13x")
    pretend(monkeypatch, dict.fromkeys(names, "1.0"), {"onnxruntime"})
    runtimes, arrays = _packages.conflicts(_packages.installed())
    assert "pip uninstall onnxruntime onnxruntime-gpu, then " in runtimes
    assert arrays.startswith("cupy-cuda12x and cupy-cuda13x are installed")


def test_a_build_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {}, {"onnxruntime"})
    found = _packages.installed()
    assert (found["onnxruntime"], found["onnxruntime-gpu"]) == (None, "installed, version unknown")
    assert _packages.conflicts(found) == []


def test_a_folder_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not _packages._is_module("tensorrt")
    assert not _packages._is_module("no_such_module")
    assert _packages._is_module("numpy")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/usr/lib/x86/libcuda.so.1: cannot\n open", "libcuda.so.1: cannot open"),
        ("in '/home/anna/engine/onnx/a.onnx', and/or b", "in 'a.onnx', and/or b"),
        (
            "see https://onnxruntime.ai/docs/install/x for it",
            "see https://onnxruntime.ai/docs/install/x for it",
        ),
        ("1/2 of GiB/s", "1/2 of GiB/s"),
    ],
)
def test_paths_are_left_out(text: str, left: str) -> None:
    assert without_paths(text) == left

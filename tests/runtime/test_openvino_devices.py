"""Devices and precisions of OpenVINO, told by one that is made up: none is changed unseen."""

import sys
from pathlib import Path
from typing import Any

import pytest
from openvino_fake import FLOATS, FakeOpenVino, installed
from wide_engine import ENGINE

from murank import InputError, MachineError
from murank.backends.load import load_session
from murank.backends.openvino.devices import message_of
from murank.backends.protocol import Products, SessionSettings
from murank.folder.contents import EngineFiles
from murank.folder.manifest import read_manifest
from murank.machine import cpu_flags as _cpu_flags
from murank.machine import device_kind as _kind
from murank.machine import telemetry as _telemetry
from murank_kernels.machine.cores import usable_cores

GRAPH = "onnx/encoder.onnx"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeOpenVino:
    return installed(monkeypatch)


def load(
    providers: str = "openvino",
    products: Products = "float32",
    plans: Path | None = None,
    *,
    in_place: bool = False,
) -> Any:
    """Load a graph; without `plans` nothing is kept."""
    manifest = None if plans is None else read_manifest(ENGINE)
    settings = SessionSettings(providers, None, plans, products)
    return load_session(EngineFiles(ENGINE, manifest, in_place=in_place), GRAPH, settings)


def test_what_is_asked_of_a_cpu(fake: FakeOpenVino) -> None:
    assert load().providers == ["OpenVINO CPU float32"]
    ((device, config),) = fake.asked
    assert device == "CPU"
    assert config["INFERENCE_PRECISION_HINT"] == "f32"
    assert config["EXECUTION_MODE_HINT"] == "ACCURACY"
    assert config["INFERENCE_NUM_THREADS"] == usable_cores()
    assert config["ENABLE_CPU_PINNING"] is False


@pytest.mark.parametrize(
    ("providers", "device", "products", "hint"),
    [
        ("openvino:CPU", "CPU", "bf16", "bf16"),
        ("openvino:GPU", "GPU", "float32", "f32"),
        ("openvino:GPU", "GPU", "fp16", "f16"),
        ("openvino:GPU.1", "GPU.1", "float32", "f32"),
        ("openvino:NPU", "NPU", "fp16", "f16"),
    ],
)
def test_devices_and_products(
    fake: FakeOpenVino, providers: str, device: str, products: Products, hint: str
) -> None:
    fake.devices = {
        "CPU": (*FLOATS, "BF16"), "GPU": ("FP16", "FP32"), "GPU.1": FLOATS, "NPU": ("FP16",),
    }  # fmt: skip
    session = load(providers, products)
    assert session.providers == [f"OpenVINO {device} {products}"]
    assert session.memory == ("openvino", "cpu", 0)  # where outputs lie
    ((asked, config),) = fake.asked
    assert (asked, config["INFERENCE_PRECISION_HINT"]) == (device, hint)
    assert ("INFERENCE_NUM_THREADS" in config) is (device == "CPU")


def test_the_first_of_several_gpus(fake: FakeOpenVino) -> None:
    fake.devices = {"CPU": FLOATS, "GPU.0": FLOATS, "GPU.1": FLOATS, "GPU": FLOATS}
    assert load("openvino:GPU").providers == ["OpenVINO GPU float32"]


@pytest.mark.parametrize(
    ("providers", "products", "names"),
    [
        ("openvino", "bf16", ["bf16", "leave products= out"]),
        ("openvino:GPU", "float32", ["no device GPU", "CPU, NPU", "providers='openvino'"]),
        ("openvino:GPU.0", "float32", ["no device GPU.0"]),
        ("openvino:NPU", "float32", ["float32", "pass products='fp16'"]),
        ("openvino:NPU", "bf16", ["bf16", "pass products='fp16'"]),
    ],
)
def test_what_the_machine_lacks(
    fake: FakeOpenVino, providers: str, products: Products, names: list[str]
) -> None:
    fake.devices = {"CPU": FLOATS, "NPU": ("FP16", "INT8", "EXPORT_IMPORT")}
    with pytest.raises(MachineError) as caught:
        load(providers, products)
    assert all(name in str(caught.value) for name in names)
    assert fake.asked == []


@pytest.mark.parametrize(
    ("products", "change", "told"),
    [
        ("bf16", {"promises": "f32", "does": "f32"}, "f32"),
        ("bf16", {"does": "f32"}, "f32"),
        ("float32", {"does": "bf16"}, "bf16"),
        ("float32", {"does": "f16"}, "f16"),
        ("float32", {"does": "u8"}, "u8"),
        ("float32", {"promises": "bf16"}, "bf16"),
        ("float32", {"group": 32}, "i8"),
        ("bf16", {"group": 32}, "i8"),
    ],
)
def test_another_precision_than_asked_for_is_refused(
    fake: FakeOpenVino, products: Products, change: dict[str, Any], told: str
) -> None:
    fake.devices["CPU"] = (*FLOATS, "BF16")
    vars(fake).update(change)
    with pytest.raises(MachineError, match=f"{products} was asked for.* {told}"):
        load(products=products)


def test_a_device_that_does_not_tell_of_its_layers(fake: FakeOpenVino) -> None:
    fake.tells = False
    assert load().providers == ["OpenVINO CPU float32"]


def test_what_cannot_be_compiled(fake: FakeOpenVino) -> None:
    fake.devices["GPU"] = FLOATS
    fake.error = RuntimeError(
        "Exception from src/core.cpp:117:\nCheck 'a == b' failed at src/x.cpp:3:\n no such layer\n"
    )
    with pytest.raises(InputError, match=r"encoder\.onnx could not be .*: no such layer; leave"):
        load()
    with pytest.raises(MachineError, match=r"on GPU: no such layer; .*'openvino' for the CPU"):
        load("openvino:GPU")
    assert message_of(RuntimeError("")) == "RuntimeError"
    fake.error = RuntimeError("Check failed: std::bad_alloc")
    for providers in ("openvino", "openvino:GPU"):  # no fault of the graph
        with pytest.raises(MachineError, match=r"encoder\.onnx: out of memory"):
            load(providers)


@pytest.mark.parametrize(
    ("providers", "error", "kind", "told"),
    [
        (
            "openvino",
            RuntimeError("Check 'x' failed at a.cpp:1: bad shape"),
            InputError,
            "bad shape",
        ),
        ("openvino:GPU", RuntimeError("device lost"), MachineError, "device lost; .* on the CPU"),
        ("openvino", MemoryError(), MachineError, "smaller max_pairs"),
        ("openvino:GPU", RuntimeError("[GPU] Out of memory"), MachineError, "smaller max_pairs"),
    ],
)
def test_runs_that_fail(
    fake: FakeOpenVino, providers: str, error: Exception, kind: type[Exception], told: str
) -> None:
    fake.devices["GPU"] = FLOATS
    session = load(providers)
    assert session.run({}, []) == []
    fake.run_error = error
    with pytest.raises(kind, match=rf"encoder\.onnx.*{told}"):
        session.run({}, [])


@pytest.mark.parametrize("version", ["2025.4.1-1", "2023.0.0", "unknown", ""])
def test_one_that_is_too_old(fake: FakeOpenVino, version: str) -> None:
    fake.__dict__["__version__"] = version
    with pytest.raises(MachineError, match=r"older than 2026\.0.*murank\[openvino\]"):
        load()


def test_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MachineError, match=r"openvino is not installed: .*murank\[openvino\]"):
        load()


def test_what_was_compiled_is_kept_for_what_made_it(fake: FakeOpenVino, tmp_path: Path) -> None:
    load(plans=tmp_path)
    load(plans=tmp_path)
    assert (len(fake.asked), fake.imported) == (1, [b"compiled"])
    fake.devices["CPU"] = (*FLOATS, "BF16")  # another CPU
    load(plans=tmp_path)
    load(products="bf16", plans=tmp_path)
    fake.__dict__["__version__"] = "2026.5.0"
    load(plans=tmp_path)
    assert (len(fake.asked), len(fake.imported)) == (4, 1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert (files[0].parent.stat().st_mode & 0o777) == 0o700


@pytest.mark.parametrize("harm", ["cut", "changed", "open", "open folder", "link", "empty"])
def test_what_was_compiled_and_harmed_is_compiled_again(
    fake: FakeOpenVino, tmp_path: Path, harm: str
) -> None:
    load(plans=tmp_path)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    whole = file.read_bytes()
    if harm == "open":
        file.chmod(0o620)
    elif harm == "open folder":
        file.parent.chmod(0o770)
    elif harm == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.write_bytes({"cut": whole[:-1], "changed": whole[:-1] + b"!", "empty": b""}[harm])
    load(plans=tmp_path)
    assert (len(fake.asked), fake.imported) == (2, [])


def test_a_graph_that_nobody_hashed_is_not_kept(fake: FakeOpenVino, tmp_path: Path) -> None:
    load(plans=tmp_path, in_place=True)
    assert [*tmp_path.iterdir()] == []
    load(plans=tmp_path)
    load(plans=tmp_path, in_place=True)  # what was kept of the same manifest serves
    assert (len(fake.asked), len(fake.imported)) == (2, 1)


def test_there_may_be_no_place_to_keep_it(
    fake: FakeOpenVino, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    load(plans=tmp_path / "file")
    monkeypatch.setattr("murank.backends.openvino.compiled_files._MOST", 1)
    load(plans=tmp_path)
    assert len(fake.asked) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_kinds_of_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("flags\t: fpu avx2 avx512f avx512_bf16\n")
    monkeypatch.setattr(_cpu_flags, "_CPU_INFO", info)
    monkeypatch.setattr(_kind, "gpu_and_driver", lambda: ("NVIDIA T4", "580"))
    kinds = {
        _kind.device_kind({"decoder": [name], "vision": [name]})
        for name in (
            "CPUExecutionProvider", "OpenVINO CPU float32", "OpenVINO CPU bf16",
            "OpenVINO GPU float32",
        )
    }  # fmt: skip
    assert len(kinds) == 4  # none goes on with the other's answers
    assert not any("T4" in one for one in kinds if "OpenVINO CPU" in one)
    assert _kind.has_bfloat16()
    info.write_text("flags\t: fpu avx2\n")
    assert not _kind.has_bfloat16()


def test_its_telemetry_is_not_imported(
    fake: FakeOpenVino, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    _telemetry.switch_off()
    with pytest.raises(ImportError):
        __import__("openvino_telemetry")
    load()
    assert not caplog.records
    monkeypatch.setitem(sys.modules, "openvino_telemetry", fake)  # somebody was faster
    _telemetry.switch_off()
    assert sys.modules["openvino_telemetry"] is fake
    load()
    assert "openvino-telemetry" in caplog.text

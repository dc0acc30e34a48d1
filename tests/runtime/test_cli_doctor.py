"""`murank doctor`: the whole examination on machines that are made up, and on this one."""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wide_engine import ENGINE

from murank import InputError
from murank.cli import main
from murank.doctor import advice as _advice
from murank.doctor import engine_trial as _engine
from murank.doctor import examination as _examine
from murank.doctor import examine
from murank.doctor.child import ProbeAnswer
from murank.doctor.machine_report import MachineReport, ReportedGpu

T4 = ReportedGpu("NVIDIA T4", "7.5", 15 << 30)
SERVER = MachineReport(
    murank="0.1.0", python="3.12.3", system="Linux 6.8 x86_64", processor="A CPU",
    integer_products="avx512_vnni", cores=16,
    memory_bytes=64 << 30, board=None, l4t=None, jetpack=None, power_mode=None, driver="580.1",
    cuda="13.0", gpus=(T4,), nvidia_card=True, why_no_gpu=None,
)  # fmt: skip
LAPTOP = replace(
    SERVER, gpus=(), nvidia_card=False, driver=None, cuda=None, why_no_gpu="no driver is installed"
)
JETSON = replace(
    SERVER, board="NVIDIA Jetson Orin Nano", l4t="36.4.3", jetpack="6.2.1", power_mode="15W",
    gpus=(ReportedGpu("Orin", "8.7", 8 << 30),), driver=None, cuda="12.6", nvidia_card=False,
)  # fmt: skip
ADA = replace(SERVER, gpus=(ReportedGpu("L4", "8.9", 24 << 30),))
ALL = (
    "numpy", "numba", "pillow", "safetensors", "onnxruntime", "onnxruntime-gpu", "numba-cuda",
    "cupy", "tensorrt", "tensorrt-rtx", "pycuda", "openvino", "onnx",
    "torch",
)  # fmt: skip
FULL = ("onnxruntime-gpu", "numba-cuda", "cupy", "tensorrt", "pycuda")
GPU_TRIALS = ("onnxruntime-cuda", "onnxruntime-tensorrt", "kernels-cuda", "tensorrt")


def packages(*names: str) -> dict[str, str | None]:
    return {name: "1.0" if name in names else None for name in ALL}


Pretend = Callable[..., list[str]]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Let the machine be another one, on which these probes fail."""

    def _pretend(
        machine: MachineReport,
        has: dict[str, str | None],
        failing: dict[str, str] | None = None,
        paces: dict[str, float] | None = None,
    ) -> list[str]:
        asked: list[str] = []

        def ask(probe: str, *arguments: str, **_: Any) -> ProbeAnswer:
            name = " ".join((probe, *arguments[1:]))
            asked.append(name)
            why = (failing or {}).get(name)
            took = (paces or {}).get(name.removeprefix("pace ")) if probe == "pace" else None
            return ProbeAnswer(why is None, why or "the product is right", took)

        monkeypatch.setattr(_examine, "this_machine", lambda: machine)
        monkeypatch.setattr(_examine, "installed", lambda: has)
        monkeypatch.setattr(_examine, "ask", ask)
        monkeypatch.setattr(_engine, "ask", ask)
        return asked

    return _pretend


def doctor(capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> tuple[str, str]:
    assert main(["doctor", *options]) == code
    out, err = capsys.readouterr()
    return out, err


def states(out: str) -> dict[str, str]:
    return {one["name"]: one["state"] for one in json.loads(out)["trials"]}


def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = doctor(capsys, "--json")
    found = json.loads(out)
    assert found["schema_version"] == 1
    assert found["cpu_works"] is True
    assert found["engine"] is None
    assert found["packages"]["numpy"]
    assert states(out)["kernels-cpu"] == states(out)["onnxruntime-cpu"] == "works"
    assert "trying: kernels on the CPU\n" in err
    assert platform.node() not in out
    assert str(Path.home()) not in out


def test_all_there(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    asked = pretend(SERVER, packages(*FULL, "openvino"))
    out, err = doctor(capsys, "--quiet")
    assert err == ""
    assert asked == ["kernels-cpu", "onnxruntime-cpu", *GPU_TRIALS, "openvino"]
    for text in (
        "NVIDIA T4, compute capability 7.5, 15.0 GiB, driver 580.1, for CUDA up to 13.0",
        "onnxruntime-gpu  1.0", "onnxruntime      -",
        "TensorRT plans             works  the product is right",
        "ready: the CPU, and onnxruntime on the GPU, onnxruntime with TensorRT, kernels on the",
    ):  # fmt: skip
        assert text in out
    assert "to have more" not in out


def test_no_gpu(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    asked = pretend(LAPTOP, packages("onnxruntime"))
    out, _ = doctor(capsys)
    assert asked == ["kernels-cpu", "onnxruntime-cpu"]
    assert "GPU        none: no driver is installed" in out
    assert " ".join(out.split()).count("a GPU is not needed") == 1
    assert out.endswith("ready, on the CPU\n")


def test_a_gpu_and_packages_for_the_cpu(
    pretend: Pretend, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(SERVER, packages("onnxruntime"))
    out, _ = doctor(capsys, "--json")
    assert states(out) == {
        "kernels-cpu": "works", "onnxruntime-cpu": "works",
        **dict.fromkeys((*GPU_TRIALS, "openvino"), "absent"),
    }  # fmt: skip
    out, _ = doctor(capsys)
    told = " ".join(out.split())
    for remedy in (
        "pip uninstall onnxruntime, then pip install 'murank[gpu]'",
        "numba-cuda and cupy missing: pip install 'murank[cuda]'",
        "TensorRT from NVIDIA, or pip install tensorrt-rtx",
    ):
        assert remedy in told


def test_a_jetson(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(JETSON, packages("onnxruntime"))
    told = " ".join(doctor(capsys)[0].split())
    for text in (
        "board NVIDIA Jetson Orin Nano", "JetPack JetPack 6.2.1, Jetson Linux 36.4.3", "power 15W",
        "install onnxruntime-gpu: on a Jetson see docs/jetson.md", "sudo apt install tensorrt",
    ):  # fmt: skip
        assert text in told


def test_a_gpu_that_fails(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(SERVER, packages(*FULL), {"onnxruntime-cuda": "libcublas.so.13 is missing"})
    out, _ = doctor(capsys)
    assert "onnxruntime on the GPU     FAILS  libcublas.so.13 is missing" in out
    assert "-> this onnxruntime-gpu needs the CUDA and cuDNN that it was" in " ".join(out.split())
    assert "ready: the CPU, and onnxruntime with TensorRT" in out


@pytest.mark.parametrize("probe", ["kernels-cpu", "onnxruntime-cpu"])
def test_exit_code_where_the_cpu_does_not_work(
    pretend: Pretend, capsys: pytest.CaptureFixture[str], probe: str
) -> None:
    pretend(LAPTOP, packages("onnxruntime"), {probe: "its process was ended by SIGILL"})
    out, err = doctor(capsys, "--quiet", code=3)
    assert "ended by SIGILL" in out
    assert "-> " in out
    assert "NOT READY" in out
    assert err.startswith("murank: error: what murank needs on every machine")


def test_without_onnxruntime(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(LAPTOP, packages())
    out, _ = doctor(capsys, "--quiet", code=3)
    assert "onnxruntime is not installed" in out
    assert "onnxruntime on the CPU: pip install 'murank[cpu]'" in out


def test_packages_that_break_each_other(
    pretend: Pretend, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(SERVER, packages("onnxruntime", *FULL))
    assert "BROKEN: onnxruntime and onnxruntime-gpu are both installed" in doctor(capsys)[0]


def test_an_engine(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    asked = pretend(
        SERVER, packages(*FULL), {"golden cuda float32": "out of memory: leave providers= out"}
    )
    out, _ = doctor(capsys, "--engine", str(ENGINE), "--json")
    assert "leave --providers out" in json.loads(out)["engine"][1]["said"]
    assert asked[6:] == ["golden cpu float32", "pace cpu float32", "golden cuda float32"]
    assert [(one["providers"], one["runs"]) for one in json.loads(out)["engine"]] == [
        ("cpu", True), ("cuda", False), ("tensorrt-plans", False), ("openvino", False)
    ]  # fmt: skip
    out, _ = doctor(capsys, "--engine", str(ENGINE))
    assert "out of memory: leave --providers out" in " ".join(out.split())
    assert "no plans for this device: run murank build" in " ".join(out.split())
    assert "fastest" not in out  # nothing told how long it took


def test_the_fastest_way(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    times = {"cpu float32": 40.0, "openvino float32": 52.25, "openvino bf16": 21.5}
    asked = pretend(LAPTOP, packages("onnxruntime", "openvino"), paces=times)
    out, err = doctor(capsys, "--engine", str(ENGINE))
    assert asked[3:] == [f"{probe} {way}" for way in times for probe in ("golden", "pace")]
    assert "fastest here: openvino, bf16, 21.5 ms for a query of 20 candidates" in out
    assert "(cpu 40.0, openvino 52.2)" in " ".join(out.split())
    assert "trying: its speed with providers openvino, bf16: five seconds\n" in err
    found = json.loads(doctor(capsys, "--engine", str(ENGINE), "--json")[0])
    ways = [(one["providers"], one["products"], one["query_ms"]) for one in found["engine"]]
    assert ways[-1] == ("openvino", "bf16", 21.5)
    assert ways[1] == ("cuda", "float32", None)


def test_an_engine_that_runs_nowhere(pretend: Pretend, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(LAPTOP, packages("onnxruntime"), {"golden cpu float32": "the answer differs"})
    out, err = doctor(capsys, "--engine", str(ENGINE), code=3)
    assert "the answer differs" in out
    assert "runs with no providers here" in err


def test_no_engine_there(
    pretend: Pretend, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = pretend(SERVER, packages(*FULL))
    assert "manifest.json" in doctor(capsys, "--engine", str(tmp_path), code=2)[1]
    assert asked == []
    with pytest.raises(InputError):
        examine(tmp_path)


class Tries:
    """An engine's manifest, as the choice of providers reads it."""

    def __init__(self, **changes: Any) -> None:
        self.precision, self.size, self.golden, self.scorer = "fp16", 3 << 30, "golden", object()
        self.__dict__.update(changes)


@pytest.mark.parametrize(
    ("machine", "manifest", "why"),
    [
        (SERVER, Tries(precision="int8"), [None, "int8 runs on CPUs only", "int8 runs on CPUs"]),
        (SERVER, Tries(precision="int8", scorer=None), [None, None, None]),
        (
            SERVER,
            Tries(precision="bf16"),
            ["bf16 does not run on CPUs", None, "no bf16 arithmetic"],
        ),
        (SERVER, Tries(precision="int8-qdq"), [None, "products of int8-qdq are TensorRT's", None]),
        (SERVER, Tries(precision="fp8"), [None, "TensorRT's", "fp8 came with 8.9; use an fp16"]),
        (ADA, Tries(precision="fp8"), [None, "run murank build", None]),
        (ADA, Tries(precision="bf16"), ["providers='cuda'", None, None]),
        # A CPU leaves quantised weights as they are.
        (ADA, Tries(precision="int4", size=8 << 30), [None, "TensorRT's", None]),
        (SERVER, Tries(golden=None), ["no golden images"] * 3),
        # Twice the weights on a CPU: 12 GB for 5; a T4 has 15.
        (SERVER, Tries(size=5 << 30), ["need about 12.0 GiB, and 10.0 GiB are free", None, None]),
        (
            SERVER,
            Tries(size=14 << 30),
            ["need about", "16.8 GiB, and 15.0 GiB are on the GPU", "on"],
        ),
        (JETSON, Tries(size=9 << 30), ["21.6 GiB", "10.8 GiB, and 10.0 GiB are free", "are free"]),
    ],
)
def test_what_need_not_be_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: MachineReport, manifest: Any, why: Any
) -> None:
    monkeypatch.setattr(_engine, "available_bytes", lambda: 10 << 30)
    monkeypatch.setattr(_engine, "ask", lambda *_, **__: ProbeAnswer(works=True, said="yes"))
    monkeypatch.setattr(_engine, "has_plans", lambda *_: True)
    works = ("onnxruntime-cpu", "onnxruntime-cuda", "tensorrt")
    found = _engine.try_engine(tmp_path, manifest, machine, works, lambda _: None)
    assert [one.providers for one in found[3:]] == ["openvino"]  # not among what works
    for one, said in zip(found, why, strict=False):
        assert one.runs == (said is None)
        assert (said or "yes") in one.said


def test_openvino_keeps_weights_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_engine, "available_bytes", lambda: 10 << 30)
    monkeypatch.setattr(_engine, "ask", lambda *_, **__: ProbeAnswer(works=True, said="yes"))
    manifest: Any = Tries(precision="fp32", size=5 << 30)
    works = ("onnxruntime-cpu", "openvino")
    cpu, *_, exact, rounded = _engine.try_engine(tmp_path, manifest, LAPTOP, works, lambda _: None)
    assert (cpu.runs, exact.runs, rounded.title) == (True, False, "openvino, bf16")
    assert "need about 12.0 GiB" in exact.said


def test_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    full = packages(*FULL)
    old = replace(SERVER, cuda="12.4", gpus=(ReportedGpu("V100", "7.0", 16 << 30),))
    assert "take CUDA 12" in _advice.for_cuda_provider(old, full)
    assert "take CUDA 12" not in _advice.for_cuda_provider(SERVER, full)
    monkeypatch.setattr(_advice, "distributions", lambda _: ["cupy-cuda13x"])
    assert "cupy-cuda13x needs a driver for CUDA 13, this one runs 12.4" in (
        _advice.for_cuda_kernels(old, full)
    )
    assert "install cupy-cuda12x instead" in _advice.for_cuda_kernels(old, full)
    assert "update the driver, numba-cuda and cupy" in _advice.for_cuda_kernels(SERVER, full)
    monkeypatch.setattr(_advice, "distributions", lambda _: ["cupy"])
    assert "update the driver, numba-cuda" in _advice.for_cuda_kernels(old, full)
    assert "pip install pycuda" in _advice.for_tensorrt(SERVER, packages("tensorrt"))
    assert "support matrix" in _advice.for_tensorrt(SERVER, full)
    assert "--force-reinstall" in _advice.for_onnxruntime(SERVER, full)
    assert "murank[gpu]" in _advice.for_onnxruntime(SERVER, packages())
    no_gpu = replace(JETSON, gpus=(), why_no_gpu="no")
    assert "--runtime nvidia" in _advice.for_no_gpu(no_gpu)
    assert "install its driver" in _advice.for_no_gpu(replace(LAPTOP, nvidia_card=True))

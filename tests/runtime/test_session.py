"""Which provider runs, told by an onnxruntime that is made up."""

import sys
from pathlib import Path
from typing import Any

import pytest
from onnxruntime_fake import CPU, CUDA, GRAPH, TENSORRT, Install, installer

from murank import InputError, MachineError
from murank.backends.load import load_session
from murank.backends.onnx.failures import load_error
from murank.backends.onnx.session import Session, SessionSettings
from murank.backends.providers import CUDA_OPTIONS, may_take_gpu
from murank.folder.contents import EngineFiles
from murank_kernels.machine.cores import usable_cores

WITH_OPTIONS = (CUDA, CUDA_OPTIONS)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    return installer(monkeypatch)


@pytest.mark.parametrize(
    ("providers", "available", "asked", "device"),
    [
        ("auto", [CPU], [CPU], "cpu"),
        ("auto", [TENSORRT, CUDA, CPU], [WITH_OPTIONS, CPU], "cuda"),
        ("cpu", [TENSORRT, CUDA, CPU], [CPU], "cpu"),
        ("cuda", [CUDA, CPU], [WITH_OPTIONS, CPU], "cuda"),
        ("tensorrt", [TENSORRT, CUDA, CPU], [TENSORRT, WITH_OPTIONS, CPU], "cuda"),
        ("tensorrt", [TENSORRT, CPU], [TENSORRT, CPU], "cuda"),
        ([CUDA], [CUDA, CPU], [CUDA], "cuda"),
    ],
)
def test_what_is_asked_of_onnxruntime(
    install: Install, providers: Any, available: list[str], asked: list[Any], device: str
) -> None:
    fake = install(available)
    session = Session(GRAPH, SessionSettings(providers))
    assert fake.asked == [asked]
    names = [one if isinstance(one, str) else one[0] for one in asked]
    assert session.providers[: len(asked)] == names
    assert session.device == device
    assert session.memory == ("onnxruntime", device, 0)


def test_the_options_of_cuda(install: Install) -> None:
    """Names and values as onnxruntime's documentation of the CUDA provider has them."""
    fake = install([CUDA, CPU])
    Session(GRAPH, SessionSettings("cuda"))
    ((_, options), cpu) = fake.asked[0]
    assert cpu == CPU
    assert options == {
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }


def test_options_of_a_list_are_passed_through(install: Install) -> None:
    fake = install([CUDA, CPU])
    providers: list[Any] = [(CUDA, {"device_id": 1}), CPU]
    session = Session(GRAPH, SessionSettings(providers))
    assert fake.asked == [[(CUDA, {"device_id": 1}), CPU]]
    assert session.providers == [CUDA, CPU]
    assert session.memory == ("onnxruntime", "cuda", 1)


def test_one_graph_alone_does_not_fall_back(install: Install) -> None:
    """Whoever loads all graphs of an engine decides; see test_engine_backends."""
    install([CUDA, CPU], working=[CPU])
    with pytest.raises(MachineError, match=rf"could not use it here and fell back to {CPU}$"):
        Session(GRAPH, SessionSettings("auto"))
    fake = install([CUDA, CPU])
    fake.error, fake.failing = RuntimeError("CUDA failure 35"), {CUDA}
    for providers in ("auto", "cuda"):
        with pytest.raises(MachineError, match=r"could not be loaded with .*: CUDA failure 35"):
            Session(GRAPH, SessionSettings(providers))


@pytest.mark.parametrize("providers", ["cuda", "tensorrt", [CUDA], [(CUDA, {"device_id": 0}), CPU]])
def test_falling_back_unasked_is_an_error(install: Install, providers: Any) -> None:
    install([TENSORRT, CUDA, CPU], working=[CPU])
    with pytest.raises(MachineError, match=rf"was asked for.*fell back to {CPU}.*'auto'"):
        Session(GRAPH, SessionSettings(providers))


def test_tensorrt_that_falls_back_to_cuda_is_an_error_too(install: Install) -> None:
    install([TENSORRT, CUDA, CPU], working=[CUDA, CPU])
    with pytest.raises(MachineError, match=rf"{TENSORRT} was asked for.*{CUDA}, {CPU}"):
        Session(GRAPH, SessionSettings("tensorrt"))


@pytest.mark.parametrize(("name", "first"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_a_library_without_the_provider(install: Install, name: str, first: str) -> None:
    install([CPU])
    with pytest.raises(MachineError, match=rf"no {first}: .*murank\[gpu\].*; on a J"):
        Session(GRAPH, SessionSettings(name))


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MachineError, match=r"murank\[cpu\]"):
        Session(GRAPH, SessionSettings())


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ("gpu", "one of auto, cpu, cuda, tensorrt, tensorrt-plans, openvino, or a list, got 'gpu'"),
        ("CUDAExecutionProvider", "or a list, got 'CUDAExecutionProvider'"),
        ([], "an empty list"),
        ((), "an empty list"),
    ],
)
def test_names_that_mean_nothing(install: Install, providers: Any, message: str) -> None:
    install([CPU])
    with pytest.raises(InputError, match=message):
        Session(GRAPH, SessionSettings(providers))


def test_a_graph_that_cannot_be_loaded(install: Install) -> None:
    """On the CPU the file is to blame, with anything else it may be the machine."""
    fake = install([CUDA, CPU])
    fake.error = RuntimeError("no\nsuch  kernel " + 400 * "x")
    with pytest.raises(InputError, match=r"vision\.onnx") as cpu:
        Session(GRAPH, SessionSettings("cpu"))
    assert "\n" not in str(cpu.value)
    assert len(str(cpu.value)) < 400
    with pytest.raises(MachineError, match=rf"could not be loaded with {CPU}, {CUDA}: no such"):
        Session(GRAPH, SessionSettings("cuda"))


def test_threads_and_spinning(install: Install) -> None:
    fake = install([CPU])
    Session(GRAPH, SessionSettings(threads=3))
    Session(GRAPH, SessionSettings())
    limited, free = fake.options
    assert limited.intra_op_num_threads == 3
    assert free.intra_op_num_threads == usable_cores()
    assert limited.enable_mem_pattern is False
    assert limited.entries == {
        "session.intra_op.allow_spinning": "0",
        "session.qdq_matmulnbits_accuracy_level": "1",  # activations of int4 engines stay floats
    }


def test_a_graph_that_does_not_fit_the_manifest(install: Install) -> None:
    install([CPU])
    session = Session(GRAPH, SessionSettings())
    session.expect({"images": (None, 3, 28, None)}, {"tokens": (None, 50)})
    for inputs, outputs, what in (
        ({"images": (None, 3, 56, 28)}, {}, "images is"),
        ({"images": (None, 3, 28)}, {}, "images is"),
        ({"crops": (None, 3, 28, 28)}, {}, "crops is missing"),
        ({}, {"features": (None, 4)}, "features is missing"),
    ):
        with pytest.raises(InputError, match=what):
            session.expect(inputs, outputs)


def test_plans_are_loaded_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(
        "murank.backends.trt.PlanSession", lambda files, name, **_: ("plan", files.folder / name)
    )
    found: object = load_session(
        EngineFiles(GRAPH.parent), GRAPH.name, SessionSettings("tensorrt-plans")
    )
    assert found == ("plan", GRAPH)


@pytest.mark.parametrize(
    ("providers", "may"),
    [
        ("auto", True), ("cpu", False), ("cuda", True), ("tensorrt", True),
        ("tensorrt-plans", True), ("openvino", False), ("openvino:GPU", False), ([CPU], False),
        ([(CPU, {})], False), ([CUDA, CPU], True), ([(CUDA, {"device_id": 1})], True),
    ],
)  # fmt: skip
def test_which_may_take_a_gpu(providers: Any, may: bool) -> None:
    assert may_take_gpu(providers) is may


@pytest.mark.parametrize("said", ["std::bad_alloc", "Failed to allocate memory for requested"])
def test_too_little_memory_to_load_is_no_fault_of_the_graph(said: str) -> None:
    for error in (RuntimeError(said), MemoryError()):
        told = load_error(GRAPH, [CPU], error, "1.23.0")
        assert isinstance(told, MachineError)
        assert str(GRAPH) in str(told)


@pytest.mark.parametrize(
    "said",
    [
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for "
        "QuantizeLinear(23) node with name 'steps'",
        "[ONNXRuntimeError] : 1 : FAIL : ONNX Runtime only *guarantees* support for models stamped "
        "with official released onnx opset versions. Opset 26 is under development",
    ],
)
@pytest.mark.parametrize("asked", [[CPU], [CUDA, CPU]])
def test_a_graph_newer_than_onnxruntime(said: str, asked: list[str]) -> None:
    told = load_error(GRAPH, asked, RuntimeError(said), "1.23.0")
    assert isinstance(told, MachineError)
    assert str(told).startswith(f"{GRAPH} holds what onnxruntime 1.23.0 does not run")
    assert "pip install -U onnxruntime" in str(told)


def test_a_file_newer_than_the_real_one(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "newer", [value], [value])
    model = onnx.helper.make_model(graph, ir_version=200)
    (tmp_path / "newer.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(MachineError, match=f"newer.onnx holds what.* {onnxruntime.__version__} "):
        Session(tmp_path / "newer.onnx", SessionSettings("cpu"))


def test_the_real_one_names_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    for name, content in (("empty", b""), ("garbage", b"no graph")):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.onnx could not be loaded by onnxruntime"):
            Session(tmp_path / f"{name}.onnx", SessionSettings("cpu"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
@pytest.mark.parametrize(
    ("providers", "error"),
    [([CPU, "NoSuchProvider"], MachineError), ([(CPU, "no options")], InputError)],
)
def test_the_real_one_keeps_its_complaints_off_stdout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], providers: Any, error: type[Exception]
) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "any.onnx").write_bytes(b"")
    with pytest.raises(error, match=r"any\.onnx could not be loaded"):
        Session(tmp_path / "any.onnx", SessionSettings(providers))
    assert capfd.readouterr().out == ""

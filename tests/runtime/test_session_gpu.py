"""What a session does on a GPU, and when the GPU fails, told by an onnxruntime that is made up."""

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnxruntime_fake import CPU, CUDA, GRAPH, TENSORRT, Install, installer

from murank import InputError, MachineError
from murank.backends.onnx.failures import is_fault, run_error
from murank.backends.onnx.session import Session, SessionSettings


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    return installer(monkeypatch)


def test_values_of_the_device_are_not_copied(install: Install) -> None:
    fake = install([CUDA, CPU])
    session = Session(GRAPH, SessionSettings())
    array, on_device = np.zeros((4, 4))[:, ::2], object()
    assert session.run({"a": array, "b": on_device}, ["tokens"]) == ["result"]
    (_, name, bound), value, output, (ran, _), (waited,) = fake.bound
    assert (name, ran, waited) == ("a", "run", "wait")
    assert bound.flags.c_contiguous
    assert value == ("value", "b", on_device)
    assert output == ("output", "tokens", "cuda", 0)


def failing(session: Session, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    session._session.run_with_iobinding = fail


@pytest.mark.parametrize(
    ("said", "kind", "remedy"),
    [
        ("BFCArena: Failed to allocate memory", MachineError, "out of memory; pass a smaller"),
        ("CUDA failure 2: out of memory ; GPU=0", MachineError, "out of memory; pass a smaller"),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", MachineError, "out of memory"),
        ("Got invalid dimensions", InputError, "could not be run"),
    ],
)
def test_a_run_that_fails(install: Install, said: str, kind: type[Exception], remedy: str) -> None:
    install([CUDA, CPU])
    session = Session(GRAPH, SessionSettings())
    failing(session, RuntimeError(said))
    for _ in range(2):  # and may be tried again
        with pytest.raises(kind, match=rf"vision\.onnx.*{remedy}.*{said}"):
            session.run({}, [])


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=ward7 ; "
        "file=cuda_allocator.cc",
        "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=ward7",
        "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error cudaErrorLaunchFailure:unspecified launch failure",
        "TensorRT EP execution context enqueue failed.",
    ],
)
def test_a_gpu_that_fails_gives_the_graph_up(install: Install, said: str) -> None:
    """The context is lost: what was loaded only keeps memory that a new process needs."""
    install([CUDA, CPU])
    session = Session(GRAPH, SessionSettings("cuda"))
    loaded = weakref.ref(session._session)
    failing(session, RuntimeError(said))
    on_device = SimpleNamespace(shape=lambda: [2, 7])
    with pytest.raises(
        MachineError, match=r"vision\.onnx: the GPU failed .* on a \[4, 3\], b \[2, 7\]"
    ) as found:
        session.run({"a": np.zeros((4, 3)), "b": on_device}, ["tokens"])
    assert "in a new process" in str(found.value)
    assert "ward7" not in str(found.value)
    gc.collect()
    assert loaded() is None  # though the exception is still here
    for ask in (
        lambda: session.run({}, ["tokens"]),
        lambda: session.to_device(np.zeros(3, np.uint8), "images"),
        lambda: session.allocate((3,), np.dtype(np.uint8)),
    ):
        with pytest.raises(MachineError, match=r"vision\.onnx"):
            ask()


def test_what_the_cpu_got_unasked(install: Install) -> None:
    fake = install([TENSORRT, CUDA, CPU])
    fake.on_cpu = ["Shape", "Gather", "Shape"]
    session = Session(GRAPH, SessionSettings("cuda"))
    assert session.on_cpu == {"Shape": 2, "Gather": 1}
    fake.on_cpu = ["Shape", "MatMul", "Softmax", "MatMul"]
    for providers in ("cuda", "tensorrt", [CUDA], [(CUDA, {"device_id": 1}), CPU]):
        with pytest.raises(MachineError, match=r"left 2 MatMul, 1 Softmax to the CPU.*'auto'"):
            Session(GRAPH, SessionSettings(providers))  # type: ignore[arg-type]
    assert Session(GRAPH, SessionSettings("auto")).on_cpu == {"Shape": 1, "MatMul": 2, "Softmax": 1}
    assert Session(GRAPH, SessionSettings([CPU, CUDA])).on_cpu is None


def test_a_version_that_does_not_tell(install: Install) -> None:
    fake = install([CUDA, CPU])
    fake.on_cpu = None
    assert Session(GRAPH, SessionSettings("cuda")).on_cpu is None


def test_libraries_from_pip_are_looked_for_where_a_gpu_is_asked_for(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = install([CUDA, CPU])
    Session(GRAPH, SessionSettings("cpu"))
    assert fake.preloaded == 0
    Session(GRAPH, SessionSettings("cuda"))
    assert fake.preloaded == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("value", ["1", 1, True, "True"])
def test_captured_graphs_are_refused(install: Install, value: object) -> None:
    install([CUDA, CPU])
    providers: list[Any] = [(CUDA, {"enable_cuda_graph": value}), CPU]
    with pytest.raises(InputError, match="enable_cuda_graph"):
        Session(GRAPH, SessionSettings(providers))
    Session(GRAPH, SessionSettings([(CUDA, {"enable_cuda_graph": "0"}), CPU]))


def test_no_memory_for_a_block(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install([CUDA, CPU])

    def none_left(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    fake.OrtValue = SimpleNamespace(ortvalue_from_numpy=none_left)  # type: ignore[attr-defined]
    session = Session(GRAPH, SessionSettings("cuda"))
    monkeypatch.setattr(session, "_beside", lambda *_: SimpleNamespace(run=none_left))
    with pytest.raises(MachineError, match=r"6 MiB more are wanted on the device .*failure 2"):
        session.allocate((3, 1 << 20), np.dtype(np.float16))
    with pytest.raises(MachineError, match=r"4 MiB more are wanted on the device .*failure 2"):
        session.to_device(np.zeros(1 << 20, np.float32))


def test_the_gpu_that_was_named(install: Install) -> None:
    fake = install([CUDA, CPU])
    session = Session(GRAPH, SessionSettings([(CUDA, {"device_id": 1}), CPU]))
    session.run({}, ["tokens"])
    assert ("output", "tokens", "cuda", 1) in fake.bound


@pytest.mark.parametrize(
    ("cause", "fault", "kind", "told"),
    [
        ("CUDA failure 700: an illegal memory access was encountered", True, MachineError,
         "the GPU failed"),
        ("CUDA failure 2: out of memory", False, MachineError, "out of memory; pass a smaller"),
    ],
)  # fmt: skip
def test_a_cause_behind_a_long_signature(
    cause: str, fault: bool, kind: type[Exception], told: str
) -> None:
    error = RuntimeError(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
        "MatMul node. Name:'node_matmul_12' Status Message: /source/onnxruntime/core/providers/"
        "cuda/cuda_call.cc:129 std::conditional_t<THRW, void, onnxruntime::common::Status> "
        "onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, const "
        "char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; "
        f"std::conditional_t<THRW, void, common::Status> = void] {cause} ; GPU=0 ; "
        "hostname=ward7 ; file=/source/cuda_call.cc"
    )
    assert is_fault(error) is fault
    found = run_error(Path("decoder.onnx"), ["vision [1,20,1,50,64]"], error)
    assert isinstance(found, kind)
    assert told in str(found)
    assert cause in str(found)
    assert "ward7" not in str(found)

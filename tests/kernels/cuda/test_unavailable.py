"""device="cuda" where it cannot run, and faults while it runs: one sentence with the remedy."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from murank_kernels import (
    DeviceUnavailableError,
    InvalidInputError,
    ca_jaccard,
    ecn,
    evaluate_rank,
    k_reciprocal,
    simple,
)
from murank_kernels.cuda import _cupy, _require
from murank_kernels.cuda._cupy import CupyArrays
from murank_kernels.cuda._kernel import Kernel

FEATURES = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
LABELS = (np.arange(3), np.arange(6) % 3, np.zeros(3, int), np.ones(6, int))


class RuntimeFaultError(RuntimeError):
    pass


class FullError(MemoryError):
    pass


class Cublas:
    """Remembers the math mode it was asked to multiply in."""

    CUBLAS_DEFAULT_MATH = 0
    CUBLASError = type("CUBLASError", (RuntimeError,), {})

    def __init__(self) -> None:
        self.mode = 3  # CUBLAS_TF32_TENSOR_OP_MATH, as another library may leave it
        self.multiplied_in: list[int] = []
        self.fault: Exception | None = None

    def getMathMode(self, handle: int) -> int:
        assert handle == 77
        return self.mode

    def setMathMode(self, handle: int, mode: int) -> None:
        assert handle == 77
        self.mode = mode


def fake_cupy(**replaced: Any) -> Any:
    """As much of CuPy as is asked before kernels run: a Jetson Orin with a fitting driver."""
    cublas = Cublas()

    def gemm(a_as: str, b_as: str, a: Any, b: Any, out: Any) -> None:
        assert (a_as, b_as) == ("N", "T")
        cublas.multiplied_in.append(cublas.mode)
        if cublas.fault is not None:
            raise cublas.fault
        out[...] = a @ b.T

    facts: dict[str, Any] = {"driver": 13020, "built": 13000, "count": 1, "capability": "87"}
    facts |= replaced
    freed: list[int] = []
    waits: list[int] = []

    def count() -> int:
        if isinstance(facts["count"], Exception):
            raise facts["count"]
        return int(facts["count"])

    runtime = SimpleNamespace(
        driverGetVersion=lambda: facts["driver"],
        runtimeGetVersion=lambda: facts["built"],
        getDeviceCount=count,
        memGetInfo=lambda: (1000, 8000),
        CUDARuntimeError=RuntimeFaultError,
    )
    stream = SimpleNamespace(ptr=5, synchronize=lambda: waits.append(1))
    return SimpleNamespace(
        cuda=SimpleNamespace(
            runtime=runtime,
            driver=SimpleNamespace(CUDADriverError=type("CUDADriverError", (RuntimeError,), {})),
            memory=SimpleNamespace(OutOfMemoryError=FullError),
            device=SimpleNamespace(get_cublas_handle=lambda: 77),
            Device=lambda: SimpleNamespace(id=1, compute_capability=facts["capability"]),
            get_current_stream=lambda: stream,
        ),
        cublas=SimpleNamespace(cublas=cublas, gemm=gemm),
        get_default_memory_pool=lambda: SimpleNamespace(
            free_bytes=lambda: 24, free_all_blocks=lambda: freed.append(1)
        ),
        freed=freed,
        waits=waits,
    )


@pytest.fixture
def numba_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for Numba's CUDA part; returns what it was asked."""
    calls: list[Any] = []
    stand_in = SimpleNamespace(
        select_device=lambda number: calls.append(("device", number)),
        external_stream=lambda pointer: ("stream", pointer),
        as_cuda_array=lambda array, sync: ("view", array, sync),
    )
    monkeypatch.setattr(_cupy, "cuda", stand_in)
    return calls


def refusal(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> str:
    monkeypatch.setattr(_require, "load_cupy", lambda: cupy)
    monkeypatch.setattr(_require, "load_cublas", lambda: None)
    with pytest.raises(DeviceUnavailableError) as caught:
        k_reciprocal(FEATURES, 3, device="cuda")
    message = str(caught.value)
    assert message.startswith("device='cuda' ")
    assert message.endswith(", or use device='cpu'")
    return message


def has_gpu() -> bool:
    try:
        _require.usable_cupy()
    except DeviceUnavailableError:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="this machine has what device='cuda' needs")
def test_this_machine() -> None:
    """Nothing is faked here: what is said must name something to do."""
    for call in (k_reciprocal, ecn, simple):
        with pytest.raises(DeviceUnavailableError, match=r"murank\[cuda\]|install it|nvidia-smi"):
            call(FEATURES, 3, device="cuda")
    with pytest.raises(DeviceUnavailableError, match="device='cuda'"):
        ca_jaccard(FEATURES, 3, np.zeros(9, int), device="cuda")


def test_without_the_cuda_part_of_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_require, "cuda", None)
    message = refusal(monkeypatch, fake_cupy())
    assert "numba-cuda, which is not installed: pip install 'murank[cuda]'" in message


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise ImportError("No module named 'cupy'")

    monkeypatch.setattr(_require, "load_cupy", fails)
    with pytest.raises(DeviceUnavailableError, match=r"needs CuPy, .*: pip install 'murank\[cuda"):
        simple(FEATURES, 3, device="cuda")


def test_without_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ImportError("libcublas.so.13")

    monkeypatch.setattr(_require, "load_cupy", fake_cupy)
    monkeypatch.setattr(_require, "load_cublas", fails)
    with pytest.raises(DeviceUnavailableError, match=r"no cuBLAS \(libcublas.so.13\): pip install"):
        simple(FEATURES, 3, device="cuda")


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        ({"driver": 0}, "finds no driver: install it (on a Jetson it is part of JetPack)"),
        ({"driver": 12040}, "driver for CUDA 12.4, which is too old for this CuPy, built for CUDA"),
        ({"count": 0}, "finds no GPU: check nvidia-smi"),
        ({"count": RuntimeFaultError("no device")}, "finds no GPU that works (no device): check"),
        ({"capability": "72"}, "compute capability 7.5 or newer, this one has 7.2"),
    ],
)
def test_what_is_missing(facts: dict[str, Any], part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert part in refusal(monkeypatch, fake_cupy(**facts))


@pytest.mark.parametrize("facts", [{}, {"capability": "110"}, {"driver": 13000, "built": 13020}])
def test_what_is_enough(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = fake_cupy(**facts)
    monkeypatch.setattr(_require, "load_cupy", lambda: cupy)
    monkeypatch.setattr(_require, "load_cublas", lambda: None)
    assert _require.usable_cupy() is cupy


def test_a_wrong_device_is_not_a_missing_one() -> None:
    with pytest.raises(InvalidInputError, match="device must be 'cpu' or 'cuda', got 'gpu'"):
        simple(FEATURES, 3, device="gpu")


def test_origdist_is_refused_before_anything_is_looked_for() -> None:
    with pytest.raises(InvalidInputError, match="method 'origdist' does not run on device='cuda'"):
        ecn(FEATURES, 3, method="origdist", device="cuda")


class OnDevice:
    """An array in a GPU's memory, as far as anybody looks."""

    __cuda_array_interface__ = {"shape": (9, 4), "typestr": "<f4", "version": 3}  # noqa: RUF012


def test_arrays_on_a_gpu_and_work_on_the_cpu() -> None:
    given: Any = OnDevice()
    calls: dict[str, Callable[[], Any]] = {
        "features": lambda: simple(given, 3),
        "mu": lambda: simple(FEATURES, 3, mu=given, candidates=np.zeros((3, 1), int)),
        "q_pids": lambda: evaluate_rank(np.zeros((3, 6)), given, *LABELS[1:]),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidInputError, match=f"{name} is in a GPU's memory: pass device"):
            call()


def test_products_are_made_in_whole_float32(numba_calls: list[Any]) -> None:
    del numba_calls
    cupy = fake_cupy()
    cublas, gpu = cupy.cublas.cublas, CupyArrays(cupy)
    out = np.empty((9, 9), np.float32)
    gpu.products(FEATURES, FEATURES, out)
    np.testing.assert_array_equal(out, FEATURES @ FEATURES.T)
    cublas.fault = RuntimeFaultError("launch failed")
    with pytest.raises(RuntimeFaultError):
        gpu.products(FEATURES, FEATURES, out)
    assert cublas.multiplied_in == [0, 0]
    assert cublas.mode == 3  # as it was found


def test_a_launch_is_on_the_stream_of_cupy(numba_calls: list[Any]) -> None:
    launched: list[Any] = []

    class Compiled:
        def __getitem__(self, configuration: Any) -> Any:
            return lambda *arguments: launched.append((configuration, arguments))

    kernel = Kernel(lambda: None, "void()")
    vars(kernel)["compiled"] = Compiled()
    gpu, array = CupyArrays(fake_cupy()), OnDevice()
    gpu.launch(kernel, 0, 32, array)
    gpu.launch(kernel, 7, 32, array, 3, True, shared_bytes=12)
    assert launched == [((7, 32, ("stream", 5), 12), (("view", array, False), 3, True))]
    assert not numba_calls
    assert gpu.threads(128) == 128
    assert gpu.free_bytes() == 1024


def test_work_is_on_the_gpu_of_cupy_and_waited_for(numba_calls: list[Any]) -> None:
    cupy = fake_cupy()
    with CupyArrays(cupy).guarded():
        assert cupy.waits == []
    assert numba_calls == [("device", 1)]
    assert cupy.waits == [1]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            FullError("asked for 9 GiB"),
            "the GPU's memory is full (asked for 9 GiB); free some of it",
        ),
        (
            RuntimeFaultError("illegal address"),
            "the GPU failed (RuntimeFaultError: illegal address); start",
        ),
        (Cublas.CUBLASError("no handle"), "the GPU failed (CUBLASError: no handle)"),
    ],
)
def test_faults_are_named_and_memory_is_freed(
    fault: Exception, message: str, numba_calls: list[Any]
) -> None:
    del numba_calls
    cupy = fake_cupy()

    def work() -> None:
        held = bytearray(9)
        assert held
        raise fault

    with (
        pytest.raises(DeviceUnavailableError, match=re.escape(message)) as caught,
        CupyArrays(cupy).guarded(),
    ):
        work()
    assert cupy.freed == [1]
    assert caught.value.__cause__ is fault
    trace = fault.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_name != "work":
        trace = trace.tb_next
    assert trace is not None
    assert "held" not in trace.tb_frame.f_locals  # nothing keeps the failed work's arrays


def test_a_bug_stays_a_bug(numba_calls: list[Any]) -> None:
    del numba_calls
    with pytest.raises(ZeroDivisionError), CupyArrays(fake_cupy()).guarded():
        raise ZeroDivisionError

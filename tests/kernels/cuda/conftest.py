"""As much of CuPy and of Numba's CUDA part as is asked where there is no GPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from murank_kernels.cuda import cupy_arrays, probe


class RuntimeFaultError(RuntimeError):
    pass


class FullError(MemoryError):
    pass


class DeviceArray(np.ndarray[Any, Any]):
    """An array at an address that one knows."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=0x7F00_0000 + self.size)


class Cublas:
    """Remembers the math modes it was asked to multiply in; CuPy 14 names no others than here."""

    CUBLAS_DEFAULT_MATH = 0
    CUBLAS_TENSOR_OP_MATH = 1
    CUBLASError = type("CUBLASError", (RuntimeError,), {})

    def __init__(self) -> None:
        self.mode = 4  # as another library may leave it
        self.multiplied_in: list[int] = []
        self.fault: Exception | None = None

    def getMathMode(self, handle: int) -> int:
        assert handle == 77
        return self.mode

    def setMathMode(self, handle: int, mode: int) -> None:
        assert handle == 77
        self.mode = mode


class Module:
    """Machine code that was loaded; starting a kernel of it is remembered."""

    def __init__(self, launched: list[Any]) -> None:
        self.launched = launched
        self.code = b""

    def load(self, code: bytes) -> None:
        self.code = code

    def get_function(self, name: str) -> Callable[..., None]:
        def start(grid: Any, block: Any, words: list[Any], shared_bytes: int) -> None:
            self.launched.append((name, self.code, grid, block, words, shared_bytes))

        return start


def make_cupy(**replaced: Any) -> Any:
    """A Jetson Orin with a fitting driver, as the second GPU of its machine."""
    cublas = Cublas()

    def gemm(a_as: str, b_as: str, a: Any, b: Any, out: Any) -> None:
        assert (a_as, b_as) == ("N", "T")
        cublas.multiplied_in.append(cublas.mode)
        if cublas.fault is not None:
            raise cublas.fault
        out[...] = a @ b.T

    facts: dict[str, Any] = {"driver": 13020, "built": 13000, "count": 1, "capability": "87"}
    facts |= {"fault": None, "device": 1} | replaced
    freed: list[int] = []
    waits: list[int] = []
    launched: list[Any] = []

    def count() -> int:
        if facts["fault"] is not None:
            raise RuntimeFaultError(facts["fault"])
        return int(facts["count"])

    runtime = SimpleNamespace(
        driverGetVersion=lambda: facts["driver"],
        runtimeGetVersion=lambda: facts["built"],
        getDeviceCount=count,
        getDevice=lambda: facts["device"],
        memGetInfo=lambda: (1000, 8000),
        CUDARuntimeError=RuntimeFaultError,
    )
    return SimpleNamespace(
        ndarray=DeviceArray,
        cuda=SimpleNamespace(
            runtime=runtime,
            driver=SimpleNamespace(CUDADriverError=type("CUDADriverError", (RuntimeError,), {})),
            memory=SimpleNamespace(OutOfMemoryError=FullError),
            device=SimpleNamespace(get_cublas_handle=lambda: 77),
            Device=lambda: SimpleNamespace(compute_capability=facts["capability"]),
            Module=lambda: Module(launched),
            get_current_stream=lambda: SimpleNamespace(synchronize=lambda: waits.append(1)),
        ),
        cublas=SimpleNamespace(cublas=cublas, gemm=gemm),
        get_default_memory_pool=lambda: SimpleNamespace(
            free_bytes=lambda: 24, free_all_blocks=lambda: freed.append(1)
        ),
        facts=facts,
        freed=freed,
        waits=waits,
        launched=launched,
        probed=[],
    )


@pytest.fixture
def fake_cupy() -> Callable[..., Any]:
    return make_cupy


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Stands in for Numba's contexts and for the probe; returns which were entered and left."""
    told: list[tuple[str, int]] = []

    @contextmanager
    def context(device: int) -> Iterator[None]:
        told.append(("in", device))
        try:
            yield
        finally:
            told.append(("out", device))

    class Gpus:
        def __getitem__(self, device: int) -> Any:
            return context(device)

    monkeypatch.setattr(cupy_arrays, "cuda", SimpleNamespace(gpus=Gpus()))
    monkeypatch.setattr(cupy_arrays, "_loaded", {})
    monkeypatch.setattr(probe, "check", lambda cupy, start, _: cupy.probed.append(start))
    return told

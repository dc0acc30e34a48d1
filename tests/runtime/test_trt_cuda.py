"""The seam to PyCUDA, on a PyCUDA that is made up here."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from murank import MachineError
from murank.trt import _cuda
from murank.trt._values import allocate_all, put


class FakeDriver(ModuleType):
    class Error(Exception):
        pass

    class MemoryError(Error):  # noqa: A001
        pass

    def __init__(self, devices: int = 1) -> None:
        super().__init__("pycuda.driver")
        self.devices, self.pushed = devices, 0
        self.done: list[tuple[Any, ...]] = []
        self.Context = SimpleNamespace(pop=lambda: self._push(-1))
        self.fail: Exception | None = None

    def _push(self, by: int) -> None:
        self.pushed += by
        assert self.pushed >= 0

    def init(self) -> None:
        if self.fail is not None:
            raise self.fail

    @property
    def Device(self) -> Any:
        def device(index: int) -> Any:
            return SimpleNamespace(
                name=lambda: f"GPU {index}",
                compute_capability=lambda: (8, 7),
                total_memory=lambda: 1 << 33,
                retain_primary_context=lambda: SimpleNamespace(push=lambda: self._push(1)),
            )

        device.count = lambda: self.devices  # type: ignore[attr-defined]
        return device

    def get_driver_version(self) -> int:
        return 12060

    def Stream(self) -> Any:
        return SimpleNamespace(handle=5, synchronize=lambda: self._note("synchronize"))

    def mem_get_info(self) -> tuple[int, int]:
        return (1 << 30, 1 << 33)

    def memcpy_htod_async(self, address: int, array: Any, stream: Any) -> None:
        assert stream.handle == 5
        self._note("up", address, array.tobytes())

    def memcpy_dtoh_async(self, array: Any, address: int, stream: Any) -> None:
        assert stream.handle == 5
        array[...] = 3
        self._note("down", address)

    def _note(self, *what: Any) -> None:
        assert self.pushed, "a call outside the context"
        if self.fail is not None:
            raise self.fail
        self.done.append(what)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    fake = FakeDriver()
    tools = ModuleType("pycuda.tools")

    def allocate(count: int) -> int:
        fake._note("allocate", count)
        return 4096

    tools.DeviceMemoryPool = lambda: SimpleNamespace(allocate=allocate)  # type: ignore[attr-defined]
    for name, module in (("", ModuleType("pycuda")), (".driver", fake), (".tools", tools)):
        monkeypatch.setitem(sys.modules, f"pycuda{name}", module)
    _cuda.open_gpu.cache_clear()
    yield fake
    _cuda.open_gpu.cache_clear()


def test_what_it_is(driver: FakeDriver) -> None:
    gpu = _cuda.open_gpu()
    assert (gpu.name, gpu.compute_capability, gpu.driver) == ("GPU 0", "8.7", "12.6")
    assert (gpu.stream, gpu.total_bytes, gpu.free_bytes()) == (5, 1 << 33, 1 << 30)
    assert _cuda.open_gpu() is gpu
    assert driver.pushed == 0


def test_copies_wait_for_the_stream(driver: FakeDriver) -> None:
    gpu = _cuda.open_gpu()
    array = put(gpu, np.arange(6, dtype=np.int16).reshape(2, 3).T)
    assert array.shape == (3, 2)
    assert array.rows(1, 9).address == 4096 + 4
    assert array.rows(1, 9).numpy().tolist() == [[3, 3], [3, 3]]
    ordered = np.array([[0, 3], [1, 4], [2, 5]], np.int16).tobytes()
    assert driver.done == [
        ("allocate", 12), ("up", 4096, ordered), ("down", 4100), ("synchronize",)
    ]  # fmt: skip
    assert array.__cuda_array_interface__["data"] == (4096, False)
    assert array.__cuda_array_interface__["typestr"] == "<i2"
    assert driver.pushed == 0


def test_one_piece_of_memory_aligned(driver: FakeDriver) -> None:
    gpu = _cuda.open_gpu()
    half, wide = np.dtype(np.float16), np.dtype(np.float32)
    made = allocate_all(gpu, {"a": ((3,), half), "b": ((0, 4), wide), "c": ((65, 1), wide)})
    assert [one.address - 4096 for one in made.values()] == [0, 256, 256]
    assert driver.done == [("allocate", 256 + 512)]
    assert made["b"].numpy().shape == (0, 4)
    assert driver.done == [("allocate", 256 + 512)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FakeDriver.MemoryError("cuMemAlloc"), "out of memory: pass a smaller max_pairs"),
        (FakeDriver.Error("launch failed"), "the GPU failed: launch failed; start again"),
    ],
)
def test_what_the_driver_refuses(driver: FakeDriver, error: Exception, words: str) -> None:
    gpu = _cuda.open_gpu()
    array = put(gpu, np.zeros(2))
    driver.fail = error
    for call in (lambda: put(gpu, np.zeros(2)), array.numpy):
        with pytest.raises(MachineError, match=words):
            call()
    assert driver.pushed == 0


def test_no_gpu(driver: FakeDriver) -> None:
    driver.fail = driver.Error("cuInit failed: no device")
    with pytest.raises(MachineError, match=r"no GPU can be used here \(cuInit.*nvidia-smi"):
        _cuda.open_gpu()
    driver.fail = None
    with pytest.raises(MachineError, match="there is no GPU 1: this machine has 1"):
        _cuda.open_gpu(1)


def test_without_pycuda(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    del driver
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MachineError, match=r"PyCUDA cannot be imported.*pip install pycuda"):
        _cuda.open_gpu()

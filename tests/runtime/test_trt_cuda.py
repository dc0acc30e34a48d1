"""The seam to PyCUDA, on a PyCUDA that is made up here."""

import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank import MachineError
from murank.backends.trt import cuda as _cuda
from murank.backends.trt.arrays import allocate_all, put


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
        self.integrated = False
        self.device_attribute = SimpleNamespace(INTEGRATED="integrated")
        self.event_flags = SimpleNamespace(DISABLE_TIMING=2)
        self.fail: Exception | None = None
        self.fail_times = 1 << 30
        self.queued: list[tuple[int, NDArray[Any]]] = []  # uploads that the GPU has not read yet
        self.memory: dict[int, bytes] = {}
        self.freed: list[int] = []

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
                get_attribute=lambda which: int(self.integrated and which == "integrated"),
                retain_primary_context=lambda: SimpleNamespace(push=lambda: self._push(1)),
            )

        device.count = lambda: self.devices  # type: ignore[attr-defined]
        return device

    def get_driver_version(self) -> int:
        return 12060

    def Stream(self) -> Any:
        return SimpleNamespace(handle=5, synchronize=lambda: self._note("synchronize"))

    def Event(self, flags: int) -> Any:
        assert flags == 2
        return SimpleNamespace(synchronize=self.read_queued, record=self._recorded)

    def _recorded(self, stream: Any) -> None:
        assert stream.handle == 5

    def read_queued(self) -> None:
        for address, pinned in self.queued:
            self.memory[address] = pinned.tobytes()
        self.queued.clear()

    def pagelocked_empty(self, size: int, dtype: Any) -> NDArray[Any]:
        self._note("pin", size)
        return np.empty(size, dtype)

    def mem_alloc(self, count: int) -> Any:
        self._note("reserve", count)
        return Allocation(self, 8192)

    def mem_get_info(self) -> tuple[int, int]:
        return (1 << 30, 1 << 33)

    def memcpy_htod_async(self, address: int, array: Any, stream: Any) -> None:
        """The worst that may happen: it is read as late as allowed."""
        assert stream.handle == 5
        self._note("up", address, array.nbytes)
        self.queued.append((address, array))

    def memcpy_dtod_async(self, target: int, source: int, count: int, stream: Any) -> None:
        assert stream.handle == 5
        self._note("copy", target, source, count)

    def memcpy_dtoh_async(self, array: Any, address: int, stream: Any) -> None:
        assert stream.handle == 5
        array[...] = 3
        self._note("down", address)

    def _note(self, *what: Any) -> None:
        assert self.pushed, "a call outside the context"
        if self.fail is not None and self.fail_times:
            self.fail_times -= 1
            raise self.fail
        self.done.append(what)


class Allocation:
    """A DeviceAllocation or a PooledDeviceAllocation: to be freed while a context is in place."""

    def __init__(self, driver: FakeDriver, address: int) -> None:
        self._driver, self._address = driver, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        assert self._driver.pushed, "this would end the process"
        self._driver.freed.append(self._address)


class Failing:
    """Raises whenever it is called."""

    def __init__(self, error: Exception) -> None:
        self._error, self.calls = error, 0

    def __call__(self, *_: object) -> None:
        self.calls += 1
        raise self._error


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    tools = ModuleType("pycuda.tools")

    def allocate(count: int) -> Allocation:
        fake._note("allocate", count)
        return Allocation(fake, 4096)

    tools.DeviceMemoryPool = lambda: SimpleNamespace(  # type: ignore[attr-defined]
        allocate=allocate, free_held=lambda: fake.done.append(("free held",))
    )
    for name, module in (("", ModuleType("pycuda")), (".driver", fake), (".tools", tools)):
        monkeypatch.setitem(sys.modules, f"pycuda{name}", module)
    monkeypatch.setattr(_cuda, "_opened", {})
    return fake


def test_what_it_is(driver: FakeDriver) -> None:
    gpu = _cuda.open_gpu()
    assert (gpu.name, gpu.compute_capability, gpu.driver) == ("GPU 0", "8.7", "12.6")
    assert (gpu.stream, gpu.total_bytes, gpu.free_bytes()) == (5, 1 << 33, 1 << 30)
    assert _cuda.open_gpu(0) is gpu  # however it is asked for
    assert driver.pushed == 0


@pytest.mark.parametrize(
    ("integrated", "available", "free"),
    [
        (False, 4 << 30, 1 << 30),
        (True, 4 << 30, 4 << 30),
        (True, 1, 1 << 30),
        (True, None, 1 << 30),
    ],
)
def test_what_files_are_cached_in_is_free_where_memory_is_shared(
    driver: FakeDriver,
    monkeypatch: pytest.MonkeyPatch,
    integrated: bool,
    available: int | None,
    free: int,
) -> None:
    driver.integrated = integrated
    monkeypatch.setattr(_cuda, "available_bytes", lambda: available)
    assert _cuda.open_gpu().free_bytes() == free


def test_threads_that_open_it_at_once_get_one(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would have two streams, and no order between the plans on them."""
    together = Barrier(4)
    monkeypatch.setattr(driver, "init", lambda: sleep(0.02))

    def open_it(_: int) -> object:
        together.wait()
        return _cuda.open_gpu()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(id, pool.map(open_it, range(4))))) == 1


def test_copies_wait_for_the_stream(driver: FakeDriver) -> None:
    gpu = _cuda.open_gpu()
    array = put(gpu, np.arange(6, dtype=np.int16).reshape(2, 3).T)
    assert array.shape == (3, 2)
    assert array.rows(1, 9).address == 4096 + 4
    assert array.rows(1, 9).numpy().tolist() == [[3, 3], [3, 3]]
    assert driver.done == [
        ("allocate", 12), ("pin", 1 << 20), ("up", 4096, 12), ("down", 4100), ("synchronize",)
    ]  # fmt: skip
    driver.read_queued()
    assert driver.memory[4096] == np.array([[0, 3], [1, 4], [2, 5]], np.int16).tobytes()
    assert array.__cuda_array_interface__["data"] == (4096, False)
    assert array.__cuda_array_interface__["typestr"] == "<i2"
    assert driver.pushed == 0


def test_what_is_uploaded_may_change_at_once(driver: FakeDriver) -> None:
    """However late the GPU reads it, and though there is one piece of pinned memory."""
    gpu = _cuda.open_gpu()
    array = np.arange(5, dtype=np.float32)
    wanted = {}
    for number in range(3):
        array[:] = number
        gpu.upload(1000 + number, array)
        wanted[1000 + number] = array.tobytes()
        array[:] = np.nan
    large = np.ones(1 << 21, np.uint8)
    gpu.upload(2000, large)
    wanted[2000] = large.tobytes()
    large[:] = 0
    driver.read_queued()
    assert driver.memory == wanted
    assert [what for what in driver.done if what[0] == "pin"] == [
        ("pin", 1 << 20),
        ("pin", 1 << 21),
    ]


def test_copies_within(driver: FakeDriver) -> None:
    _cuda.open_gpu().copy(30, 20, 10)
    assert driver.done == [("copy", 30, 20, 10)]
    assert driver.pushed == 0


@pytest.mark.parametrize("what", ["allocate", "reserve"])
def test_memory_that_lies_idle_is_given_back_before_it_runs_out(
    driver: FakeDriver, what: str
) -> None:
    gpu = _cuda.open_gpu()
    driver.fail, driver.fail_times = driver.MemoryError("cuMemAlloc"), 1
    memory = getattr(gpu, what)(10)
    assert int(memory) in (4096, 8192)
    assert driver.done == [("free held",), (what, 10)]
    driver.fail_times = 2  # once, and no more
    with pytest.raises(MachineError, match="out of memory"):
        getattr(gpu, what)(10)
    assert not gpu.failed
    assert not gpu.has_failed()
    assert getattr(gpu, what)(0)  # nothing is a byte


@pytest.mark.parametrize(("what", "address"), [("allocate", 4096), ("reserve", 8192)])
def test_memory_is_freed_in_the_context_by_whatever_thread_drops_it(
    driver: FakeDriver, what: str, address: int
) -> None:
    held = [getattr(_cuda.open_gpu(), what)(10)]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(held.clear).result()
    assert driver.freed == [address]
    assert driver.pushed == 0


@pytest.mark.parametrize("known", [False, True])
def test_memory_of_a_gpu_that_failed(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """What PyCUDA gave is never destroyed: that would end the process."""
    gpu = _cuda.open_gpu()
    memory = gpu.allocate(10)
    kept = weakref.ref(memory._memory)
    monkeypatch.setattr(driver, "_push", failing := Failing(driver.Error("an illegal address")))
    assert not known or gpu.has_failed()
    del memory  # raises nothing: pytest makes an error of what `__del__` raises
    gc.collect()
    assert failing.calls == 1
    assert gpu.failed
    assert driver.freed == []
    assert kept() is not None


def test_a_gpu_outlives_whoever_asked_for_it(driver: FakeDriver) -> None:
    """At the end of the process, too, when PyCUDA's destructors would have the last word."""
    del driver
    kept = weakref.ref(_cuda.open_gpu())
    _cuda._opened.clear()
    gc.collect()
    assert kept() is not None


def test_a_gpu_that_failed_is_lost(driver: FakeDriver) -> None:
    gpu = _cuda.open_gpu()
    driver.fail, driver.fail_times = driver.Error("an illegal\n address"), 1
    assert gpu.has_failed()  # as the stream is waited for
    assert gpu.failed
    for call in (gpu.free_bytes, lambda: gpu.allocate(1), lambda: gpu.upload(0, np.ones(1))):
        with pytest.raises(MachineError, match="lost it: load the engine again, in a new process"):
            call()
    assert _cuda.open_gpu() is gpu  # loading again does not help
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
        (
            FakeDriver.Error("launch failed"),
            "^the GPU failed; start again in a new process, .*`murank doctor`: launch failed$",
        ),
    ],
)
def test_what_the_driver_refuses(driver: FakeDriver, error: Exception, words: str) -> None:
    gpu = _cuda.open_gpu()
    array = put(gpu, np.zeros(2))
    driver.fail = error
    with pytest.raises(MachineError, match=words):
        array.numpy()
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
    with pytest.raises(MachineError, match="pip install pycuda"):
        _cuda.open_gpu()

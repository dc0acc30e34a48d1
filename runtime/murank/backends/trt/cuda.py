"""The one place that imports PyCUDA: memory, copies and one stream of a GPU.

The primary context is used, which the other libraries in this process use as well.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from numpy.typing import NDArray

from murank._exceptions import MachineError
from murank.backends.trt.faults import AGAIN, GpuError
from murank.backends.trt.staging import Staging
from murank.machine.library import LibraryError, library
from murank.machine.memory import available_bytes

_INSTALL = "run `pip install pycuda` (it is compiled: the CUDA toolkit must be there)"


class Gpu(Protocol):
    """What plans need of a GPU; all work is in the order of one stream."""

    name: str
    compute_capability: str  # "8.7"
    driver: str  # the newest CUDA that it runs: "12.6"
    total_bytes: int
    stream: int  # handle
    failed: bool  # for good: whatever is asked of it raises MachineError

    def active(self) -> Any:
        """Return a context manager inside which this thread may use the GPU.

        What the driver refuses there becomes a MachineError: a GpuError, unless memory is short.
        """

    def has_failed(self) -> bool:
        """Whether it failed in anything that was queued so far, which is waited for."""

    def free_bytes(self) -> int:
        """Memory that can be had now."""

    def allocate(self, count: int) -> Any:
        """Return `count` bytes: int() of it is the address, and they are freed with it.

        They may be memory that an array had before, and take up to a quarter more.
        """

    def reserve(self, count: int) -> Any:
        """Return as many bytes to be kept for long: no more than these are taken."""

    def release(self) -> None:
        """Give back memory of arrays that are gone: others than `allocate` may want it."""

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the GPU; it may change after the return."""

    def copy(self, target: int, source: int, count: int) -> None:
        """Copy bytes within the GPU, after all work so far."""

    def download(self, array: NDArray[Any], address: int) -> None:
        """Fill a contiguous array from the GPU, after all work so far."""


_opened: dict[int, Gpu] = {}
_opening = threading.Lock()


def open_gpu(index: int = 0) -> Gpu:
    """Return a GPU; the same object, with one stream, whenever it is asked for.

    Raises
    ------
    MachineError
        PyCUDA is not installed, or no such GPU can be used.
    """
    # Two objects would be two streams, and the order between plans would be lost.
    with _opening:
        if index not in _opened:
            _opened[index] = _open(index)
        return _opened[index]


def _open(index: int) -> Gpu:
    try:
        driver: Any = library("pycuda.driver", install=_INSTALL)
        tools: Any = library("pycuda.tools", install=_INSTALL)
    except LibraryError as error:
        if "libcuda.so" in str(error):
            raise MachineError(
                f"PyCUDA finds no NVIDIA driver ({error.__cause__}): install it, and in a "
                "container see that it was started with access to the GPU"
            ) from error
        raise
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise MachineError(
            f"no GPU can be used here ({error}): check that `nvidia-smi` (Jetson: `tegrastats`) "
            "works, and in a container that it was started with access to the GPU"
        ) from error
    if not 0 <= index < count:
        raise MachineError(f"there is no GPU {index}: this machine has {count}, counted from 0")
    with _refusals(driver):
        gpu = _PyCuda(driver, tools, index)
    _keep(gpu)
    return gpu


class _PyCuda:
    """One GPU through PyCUDA."""

    def __init__(self, driver: Any, tools: Any, index: int) -> None:
        self._driver = driver
        device = driver.Device(index)
        self.name: str = device.name()
        self.compute_capability = ".".join(map(str, device.compute_capability()))
        self.driver = _cuda_version(driver.get_driver_version())
        self.total_bytes: int = device.total_memory()
        self._shares = bool(device.get_attribute(driver.device_attribute.INTEGRATED))
        self.failed = False
        self._context = device.retain_primary_context()
        with self.active():
            self._stream = driver.Stream()
            self._staging = Staging(driver, self._stream)
            self._pool = tools.DeviceMemoryPool()  # cuMemAlloc waits for the GPU
        self.stream: int = self._stream.handle

    @contextmanager
    def active(self) -> Iterator[None]:
        if self.failed:
            raise MachineError(f"the GPU failed, and this process has lost it: {AGAIN}")
        try:
            with _refusals(self._driver):
                self._context.push()
                try:
                    yield
                finally:
                    self._driver.Context.pop()
        except GpuError:
            self.failed = True
            raise

    def has_failed(self) -> bool:
        if not self.failed:
            with suppress(GpuError), self.active():
                self._stream.synchronize()
        return self.failed

    def free_bytes(self) -> int:
        with self.active():
            free = int(self._driver.mem_get_info()[0])
        # Of a memory that the CPU has as well, CUDA does not count what caches files, though it
        # would get it: and whoever asks has just read gigabytes of them.
        return max(free, available_bytes() or 0) if self._shares else free

    def allocate(self, count: int) -> Any:
        return _Memory(self, self._had(self._pool.allocate, count))

    def reserve(self, count: int) -> Any:
        return _Memory(self, self._had(self._driver.mem_alloc, count))

    def _had(self, allocate: Callable[[int], Any], count: int) -> Any:
        with self.active():
            try:
                return allocate(max(1, count))
            except self._driver.MemoryError:
                self.release()
                return allocate(max(1, count))

    def free(self, memory: Any) -> None:
        """Free what PyCUDA allocated; where the GPU failed, the end of the process does."""
        try:
            with self.active():
                memory.free()
        except MachineError:
            _keep(memory)

    def release(self) -> None:
        with self.active():
            self._pool.free_held()  # waits for the GPU, so nothing queued uses it any more

    def upload(self, address: int, array: NDArray[Any]) -> None:
        with self.active():
            self._staging.upload(address, array)

    def copy(self, target: int, source: int, count: int) -> None:
        with self.active():
            self._driver.memcpy_dtod_async(target, source, count, self._stream)

    def download(self, array: NDArray[Any], address: int) -> None:
        with self.active():
            self._driver.memcpy_dtoh_async(array, address, self._stream)
            self._stream.synchronize()


def _keep(thing: Any) -> None:
    """Let nothing destroy it: PyCUDA's destructors end a process whose GPU failed.

    They also say on stderr, when any process ends, what they could not clean up.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class _Memory:
    """Memory that may be dropped anywhere, in any thread.

    Without a context in place PyCUDA never frees what `mem_alloc` gave, but in the thread that
    opened the GPU; and its pool, whose other memory is all in use, ends the process.
    """

    def __init__(self, gpu: _PyCuda, memory: Any) -> None:
        self._gpu, self._memory = gpu, memory

    def __int__(self) -> int:
        return int(self._memory)

    def __del__(self) -> None:
        self._gpu.free(self._memory)


@contextmanager
def _refusals(driver: Any) -> Iterator[None]:
    """Turn what the driver raises into a MachineError."""
    try:
        yield
    except driver.MemoryError as error:
        raise MachineError(
            "the GPU is out of memory: pass a smaller max_pairs, run murank build with fewer "
            f"--candidates, or stop what else uses it ({error})"
        ) from error
    except driver.Error as error:
        raise GpuError(" ".join(str(error).split())) from error


def _cuda_version(number: int) -> str:
    """12060 -> "12.6"."""
    return f"{number // 1000}.{number % 1000 // 10}"

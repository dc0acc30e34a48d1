"""Matrix products, copies and clocks of what is measured on: PyTorch's, CuPy's or NumPy's."""

import importlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from gpu.context import Context, need_driver
from gpu.rows import CannotRun

Call = Callable[[], object]
WARM = 2  # runs before those that count


class Accelerator(Protocol):
    """What the floors are measured by."""

    name: str
    dtypes: tuple[str, ...]  # of products

    def product(self, size: int, dtype: str) -> Call:
        """A call that multiplies two square matrices."""

    def copy(self, num_bytes: int) -> Call:
        """A call that copies so many bytes on the device."""

    def seconds(self, call: Call, runs: int) -> list[float]:
        """Seconds of each of some runs, after warm ones."""


class TorchGpu:
    """PyTorch; float32 without TF32."""

    name = "PyTorch"
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")

    def __init__(self) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        self._torch = torch

    def product(self, size: int, dtype: str) -> Call:
        torch, kind = self._torch, getattr(self._torch, dtype)
        a, b = (torch.randn(size, size, device="cuda", dtype=kind) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.matmul(a, b, out=out)

    def copy(self, num_bytes: int) -> Call:
        source = self._torch.zeros(num_bytes, dtype=self._torch.uint8, device="cuda")
        target = self._torch.empty_like(source)
        return lambda: target.copy_(source)

    def seconds(self, call: Call, runs: int) -> list[float]:
        torch = self._torch
        for _ in range(WARM):
            call()
        found = []
        for _ in range(runs):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            stop.synchronize()
            found.append(start.elapsed_time(stop) / 1e3)
        return found


class CupyGpu:
    """CuPy, whose stream the kernels use."""

    name = "CuPy"
    dtypes: tuple[str, ...] = ("float32", "float16")

    def __init__(self, cupy: Any) -> None:
        self.xp = cupy

    def product(self, size: int, dtype: str) -> Call:
        xp = self.xp
        a, b = (xp.random.standard_normal((size, size)).astype(dtype) for _ in range(2))
        out = xp.empty_like(a)
        return lambda: xp.matmul(a, b, out=out)

    def copy(self, num_bytes: int) -> Call:
        source = self.xp.zeros(num_bytes, np.uint8)
        target = self.xp.empty_like(source)
        return lambda: target.data.copy_from_device_async(
            source.data, num_bytes, self.xp.cuda.get_current_stream()
        )

    def seconds(self, call: Call, runs: int) -> list[float]:
        cuda = self.xp.cuda
        for _ in range(WARM):
            call()
        found = []
        for _ in range(runs):
            start, stop = cuda.Event(), cuda.Event()
            start.record()
            call()
            stop.record()
            stop.synchronize()
            found.append(float(cuda.get_elapsed_time(start, stop)) / 1e3)
        return found

    def put(self, array: Any) -> Any:
        """Upload."""
        return self.xp.asarray(array)

    def synchronize(self) -> None:
        """Wait for all that was started."""
        self.xp.cuda.get_current_stream().synchronize()

    def peak_bytes(self, call: Call) -> int | None:
        """Most memory that CuPy held for a call, its input included."""
        pool = self.xp.get_default_memory_pool()
        pool.free_all_blocks()
        call()
        held = int(pool.total_bytes())  # it gives nothing back by itself
        pool.free_all_blocks()
        return held


class Cpu:
    """NumPy, to try the script itself."""

    name = "NumPy"
    dtypes: tuple[str, ...] = ("float32",)

    def product(self, size: int, dtype: str) -> Call:
        a = np.ones((size, size), dtype)
        return lambda: a @ a

    def copy(self, num_bytes: int) -> Call:
        source = np.zeros(num_bytes, np.uint8)
        target = np.empty_like(source)
        return lambda: np.copyto(target, source)

    def seconds(self, call: Call, runs: int) -> list[float]:
        for _ in range(WARM):
            call()
        found = []
        for _ in range(runs):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
        return found

    def put(self, array: Any) -> Any:
        """Nothing is to be done."""
        return array

    def synchronize(self) -> None:
        """Nothing is to be done."""

    def peak_bytes(self, call: Call) -> int | None:
        """Not measured here."""
        call()
        return None


def for_floor(context: Context) -> Accelerator:
    """PyTorch, which has bfloat16, else CuPy. Raises CannotRun where neither has a GPU."""
    if not context.on_gpu:
        return Cpu()
    need_driver()
    reasons = []
    try:
        import torch

        if torch.cuda.is_available():
            return TorchGpu()
        reasons.append(f"PyTorch {torch.__version__} finds no CUDA")
    except ImportError as error:
        reasons.append(str(error))
    try:
        cupy = importlib.import_module("cupy")
        if cupy.cuda.runtime.getDeviceCount():
            return CupyGpu(cupy)
    except ImportError as error:
        reasons.append(str(error))
    raise CannotRun("; ".join(reasons) or "neither PyTorch nor CuPy finds a GPU")


def for_kernels(context: Context) -> CupyGpu | Cpu:
    """What holds the kernels' input; `need_kernels` comes first."""
    if not context.on_gpu:
        return Cpu()
    return CupyGpu(importlib.import_module("cupy"))

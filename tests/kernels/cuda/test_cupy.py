"""What CuPy, cuBLAS and a context are asked for, with all of them faked."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from murank_kernels import DeviceUnavailableError
from murank_kernels.cuda import cubins, probe
from murank_kernels.cuda.cupy_arrays import CupyArrays
from murank_kernels.cuda.kernel import Kernel

FEATURES = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
Contexts = list[tuple[str, int]]
FakeCupy = Callable[..., Any]


def somewhere(*shape: int, dtype: Any = np.float32) -> None:
    del shape, dtype


KERNEL = Kernel(somewhere, "void(f4[:,::1], i8, b1, i4[::1], f4, f8)")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands in for the compiler; returns what it was asked."""
    asked: list[Any] = []

    def cubin(kernel: Kernel, capability: tuple[int, int]) -> bytes:
        asked.append((kernel, capability))
        return b"code"

    monkeypatch.setattr(cubins, "cubin", cubin)
    return asked


def arguments(cupy: Any) -> list[Any]:
    matrix = np.zeros((2, 3), np.float32).view(cupy.ndarray)
    return [matrix, 7, True, np.ones(5, np.int32).view(cupy.ndarray), np.float32(0.5), 0.25]


def test_a_launch(contexts: Contexts, compiled: list[Any], fake_cupy: FakeCupy) -> None:
    cupy = fake_cupy()
    gpu = CupyArrays(cupy)
    gpu.launch(KERNEL, 0, 32, *arguments(cupy))
    assert compiled == cupy.launched == []
    for _ in range(2):
        gpu.launch(KERNEL, 40, 32, *arguments(cupy), shared_bytes=12)
    assert compiled == [(probe.tell, (8, 7)), (KERNEL, (8, 7))]
    assert cupy.launched[0] == cupy.launched[1]
    name, code, grid, block, words, shared_bytes = cupy.launched[0]
    assert (name, code) == ("murank_somewhere", b"code")
    assert (grid, block, shared_bytes) == ((40,), (32,), 12)
    matrix, vector = [0, 0, 6, 4, 0x7F000006, 2, 3, 12, 4], [0, 0, 5, 4, 0x7F000005, 5, 4]
    assert words == [*matrix, 7, True, *vector, 0.5, 0.25]
    kinds = [type(word) for word in words if type(word) is not int]
    assert kinds == [np.bool_, np.float32, float]
    assert contexts == []
    assert gpu.threads(128) == 128
    assert gpu.free_bytes() == 1024


def test_a_kernel_is_loaded_on_each_gpu(
    contexts: Contexts, compiled: list[Any], fake_cupy: FakeCupy
) -> None:
    del contexts
    cupy = fake_cupy()
    for device in (0, 1, 0):
        cupy.facts["device"] = device
        CupyArrays(cupy).launch(KERNEL, 1, 32, *arguments(cupy))
    assert [kernel for kernel, _ in compiled] == [probe.tell, KERNEL] * 2
    assert len(cupy.launched) == 3
    assert len(cupy.probed) == 2


def test_no_kernel_starts_unless_the_first_one_was_right(
    contexts: Contexts,
    compiled: list[Any],
    fake_cupy: FakeCupy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del contexts
    cupy = fake_cupy()

    def fails(*_: Any) -> None:
        raise DeviceUnavailableError("other values")

    monkeypatch.setattr(probe, "check", fails)
    for _ in range(2):  # every time it is asked for
        with pytest.raises(DeviceUnavailableError, match="other values"):
            CupyArrays(cupy).launch(KERNEL, 1, 32, *arguments(cupy))
    assert [kernel for kernel, _ in compiled] == [probe.tell] * 2
    assert cupy.launched == []


def test_two_threads_compile_a_kernel_once(
    contexts: Contexts, compiled: list[Any], fake_cupy: FakeCupy
) -> None:
    del contexts
    cupy = fake_cupy()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(8):
            pool.submit(CupyArrays(cupy).launch, KERNEL, 1, 32, *arguments(cupy))
    assert [kernel for kernel, _ in compiled] == [probe.tell, KERNEL]
    assert len(cupy.launched) == 8


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, np.zeros((2, 3), np.float32)),  # in host memory
        (1, np.int64(7)),
        (2, 1),
        (4, 0.5),
    ],
)
def test_a_launch_refuses_other_types(
    place: int, value: Any, contexts: Contexts, compiled: list[Any], fake_cupy: FakeCupy
) -> None:
    del contexts
    cupy = fake_cupy()
    given = arguments(cupy)
    given[place] = value
    with pytest.raises(TypeError, match=f"argument {place} of somewhere is not"):
        CupyArrays(cupy).launch(KERNEL, 1, 32, *given)
    assert compiled == []


@pytest.mark.parametrize(("tf32", "mode"), [(False, 0), (True, 3)])
def test_products_are_made_as_asked_for(
    tf32: bool, mode: int, contexts: Contexts, fake_cupy: FakeCupy
) -> None:
    del contexts
    cupy = fake_cupy()
    cublas, gpu = cupy.cublas.cublas, CupyArrays(cupy)
    out = np.empty((9, 9), np.float32)
    gpu.products(FEATURES, FEATURES, out, tf32=tf32)
    np.testing.assert_array_equal(out, FEATURES @ FEATURES.T)
    cublas.fault = RuntimeError("launch failed")
    with pytest.raises(RuntimeError, match="launch failed"):
        gpu.products(FEATURES, FEATURES, out, tf32=tf32)
    assert cublas.multiplied_in == [mode, mode]
    assert cublas.mode == 4  # as it was found


def test_work_is_in_the_context_of_cupys_gpu_and_waited_for(
    contexts: Contexts, fake_cupy: FakeCupy
) -> None:
    """CuPy has looked at the thread's context before: it does not do so again afterwards."""
    cupy = fake_cupy()
    cupy.cuda.runtime.memGetInfo = lambda: contexts.append(("look", 1))
    with CupyArrays(cupy).guarded():
        assert contexts == [("look", 1), ("in", 1)]
        assert cupy.waits == []
    assert contexts == [("look", 1), ("in", 1), ("out", 1)]
    assert cupy.waits == [1]


def test_a_context_is_left_after_an_error(contexts: Contexts, fake_cupy: FakeCupy) -> None:
    cupy = fake_cupy()
    with pytest.raises(ZeroDivisionError), CupyArrays(cupy).guarded():
        raise ZeroDivisionError
    assert contexts == [("in", 1), ("out", 1)]
    assert cupy.freed == []  # a bug stays a bug

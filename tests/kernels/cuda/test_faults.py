"""Faults while a GPU works: one sentence with the remedy, of whatever library they are."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from murank_kernels import DeviceUnavailableError
from murank_kernels.cuda import cubins, faults
from murank_kernels.cuda.cupy_arrays import CupyArrays
from murank_kernels.cuda.kernel import Kernel

FakeCupy = Callable[..., Any]
FAILED = "start the process again, and use device='cpu' if that repeats"
DOES_NOT_COMPILE = "a kernel does not compile for this GPU ("
NAMED = [
    (module, name, compiles)
    for table, compiles in ((faults._COMPILERS, True), (faults._DEVICES, False))
    for module, names in table.items()
    for name in names
]

pytestmark = pytest.mark.usefixtures("contexts")


def message_of(cupy: Any, fault: BaseException) -> str:
    def work() -> None:
        held = bytearray(9)
        assert held
        raise fault

    with pytest.raises(DeviceUnavailableError) as caught, CupyArrays(cupy).guarded():
        work()
    assert caught.value.__cause__ is fault
    trace = fault.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_name != "work":
        trace = trace.tb_next
    assert trace is not None
    assert "held" not in trace.tb_frame.f_locals  # nothing keeps the failed work's arrays
    assert cupy.freed == [1]
    return str(caught.value)


def test_full_memory(fake_cupy: FakeCupy) -> None:
    cupy = fake_cupy()
    message = message_of(cupy, cupy.cuda.memory.OutOfMemoryError("asked for 9 GiB"))
    assert message.startswith("the GPU's memory is full (asked for 9 GiB); free some of it")


@pytest.mark.parametrize("of", ["runtime", "driver", "cublas"])
def test_faults_of_cupy(of: str, fake_cupy: FakeCupy) -> None:
    cupy = fake_cupy()
    fault = {
        "runtime": cupy.cuda.runtime.CUDARuntimeError,
        "driver": cupy.cuda.driver.CUDADriverError,
        "cublas": cupy.cublas.cublas.CUBLASError,
    }[of]("illegal address")
    told = f"the GPU failed ({type(fault).__name__}: illegal address); {FAILED}"
    assert message_of(cupy, fault) == told


@pytest.mark.parametrize(("module", "name", "compiles"), NAMED)
def test_faults_of_other_libraries(
    module: str, name: str, compiles: bool, monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy
) -> None:
    """Each class where its library has it; the libraries themselves need not be here."""
    fault = type(name, (Exception,), {})
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: fault}))
    message = message_of(fake_cupy(), fault("code 13"))
    if compiles:
        assert message.startswith(f"{DOES_NOT_COMPILE}{name}: code 13); update the driver and the")
        assert message.endswith("use device='cpu' meanwhile")
    else:
        assert message == f"the GPU failed ({name}: code 13); {FAILED}"


@pytest.mark.parametrize(("module", "name", "compiles"), NAMED)
def test_the_installed_libraries_have_these_names(module: str, name: str, compiles: bool) -> None:
    del compiles
    try:
        found = importlib.import_module(module)
    except ImportError:
        pytest.skip(f"{module} is not installed")
    if name in {"JitifyException", "DeadMemoryError"} and not hasattr(found, name):
        pytest.skip("only some versions have it")
    assert issubclass(getattr(found, name), Exception)


def test_a_context_of_somebody_else(fake_cupy: FakeCupy) -> None:
    fault = RuntimeError("Numba cannot operate on non-primary CUDA context 5f3")
    assert "non-primary CUDA context 5f3); start" in message_of(fake_cupy(), fault)
    with pytest.raises(RuntimeError, match="of ours"), CupyArrays(fake_cupy()).guarded():
        raise RuntimeError("a mistake of ours")


def test_a_library_that_cupy_cannot_import(
    monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy
) -> None:
    missing = type("DynamicLibNotFoundError", (RuntimeError,), {})
    monkeypatch.setitem(
        sys.modules, "cuda.pathfinder", SimpleNamespace(DynamicLibNotFoundError=missing)
    )
    fault = ImportError("no libnvrtc.so.13")
    fault.__cause__ = missing("no libnvrtc.so.13")
    assert message_of(fake_cupy(), fault).startswith(DOES_NOT_COMPILE)
    with pytest.raises(ImportError, match="murank_x"), CupyArrays(fake_cupy()).guarded():
        raise ImportError("no module murank_x")


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("libdevice is not there"),
        FileNotFoundError("libnvvm.so"),
        ModuleNotFoundError("No module named 'cuda.core'"),
    ],
)
def test_what_else_a_compiler_says(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy
) -> None:
    """Outside the compiler these would be mistakes of ours."""

    def cubin(*_: Any) -> bytes:
        raise fault

    monkeypatch.setattr(cubins, "cubin", cubin)
    kernel = Kernel(lambda: None, "void()")
    with pytest.raises(DeviceUnavailableError) as caught, CupyArrays(fake_cupy()).guarded():
        CupyArrays(fake_cupy()).launch(kernel, 1, 32)
    assert str(caught.value).startswith(f"{DOES_NOT_COMPILE}{type(fault).__name__}: {fault}")


def test_the_drivers_linker_refuses(monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy) -> None:
    """Without nvJitLink the driver links, and what it raises is a fault of the GPU elsewhere."""
    refused = type("CUDAError", (Exception,), {})
    module = "cuda.core._utils.cuda_utils"
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(CUDAError=refused))

    def cubin(*_: Any) -> bytes:
        raise refused("CUDA_ERROR_UNSUPPORTED_PTX_VERSION")

    monkeypatch.setattr(cubins, "cubin", cubin)
    with pytest.raises(DeviceUnavailableError) as caught, CupyArrays(fake_cupy()).guarded():
        CupyArrays(fake_cupy()).launch(Kernel(lambda: None, "void()"), 1, 32)
    assert str(caught.value).startswith(f"{DOES_NOT_COMPILE}CUDAError: CUDA_ERROR_UNSUPPORTED")


def test_a_fault_while_compiling(monkeypatch: pytest.MonkeyPatch, fake_cupy: FakeCupy) -> None:
    cupy = fake_cupy()

    def cubin(*_: Any) -> bytes:
        raise cupy.cuda.runtime.CUDARuntimeError("the GPU is lost")

    monkeypatch.setattr(cubins, "cubin", cubin)
    with (
        pytest.raises(DeviceUnavailableError, match=r"the GPU failed .* the GPU is lost"),
        CupyArrays(cupy).guarded(),
    ):
        CupyArrays(cupy).launch(Kernel(lambda: None, "void()"), 1, 32)


def test_the_first_fault_is_told(fake_cupy: FakeCupy) -> None:
    """After one, the context cannot even be left."""
    cupy = fake_cupy()
    fault = cupy.cuda.runtime.CUDARuntimeError
    second = fault("context is destroyed")
    second.__context__ = KeyError("between")
    second.__context__.__context__ = fault("illegal address")
    assert f"(RuntimeFaultError: illegal address); {FAILED}" in message_of(cupy, second)


def test_memory_that_cannot_be_given_back(fake_cupy: FakeCupy) -> None:
    cupy = fake_cupy()

    def fails() -> None:
        raise cupy.cuda.runtime.CUDARuntimeError("sticky")

    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=fails)
    with (
        pytest.raises(DeviceUnavailableError, match=re.escape("(RuntimeFaultError: first)")),
        CupyArrays(cupy).guarded(),
    ):
        raise cupy.cuda.runtime.CUDARuntimeError("first")

"""The real GPU: CuPy's arrays, cuBLAS and stream; kernels compiled by Numba, started by CuPy."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from numpy.typing import NDArray

from murank_kernels._exceptions import DeviceUnavailableError
from murank_kernels.cuda import cubins, faults, probe
from murank_kernels.cuda.kernel import Kernel, cuda
from murank_kernels.cuda.parameters import as_words, check_arguments
from murank_kernels.cuda.require import INSTALL, capability

TF32_MATH = 3  # cuBLAS's CUBLAS_TF32_TENSOR_OP_MATH, of which CuPy knows nothing

_loaded: dict[tuple[int, str], Any] = {}  # (device, kernel) -> what CuPy starts
_lock = Lock()  # of compiling and loading


class CupyArrays:
    """Implements Arrays."""

    lanes = 32

    def __init__(self, cupy: Any) -> None:
        self.xp = cupy
        self.out_of_memory: type[BaseException] = cupy.cuda.memory.OutOfMemoryError

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Work in the primary context of CuPy's GPU; name a fault, and give back cached memory.

        A context that the thread had before, whoever made it, is its own again afterwards.
        """
        try:
            # CuPy looks once in a thread whether there is a context. If it first looked inside, it
            # would rely on one that is gone afterwards.
            self.xp.cuda.runtime.memGetInfo()
            with cuda.gpus[self._device()]:
                yield
                self.xp.cuda.get_current_stream().synchronize()  # kernels fault after they start
        except self.out_of_memory as error:
            self._release_quietly(error)
            raise DeviceUnavailableError(
                f"the GPU's memory is full ({error}); free some of it, ask for top_k, or use "
                "device='cpu'"
            ) from error
        except Exception as error:
            message = self._told(error)
            if message is None:
                raise
            self._release_quietly(error)
            raise DeviceUnavailableError(message) from error

    def put(self, value: Any) -> Any:
        """Upload, or look at what is there already; an array on another GPU is refused by CuPy."""
        return self.xp.ascontiguousarray(self.xp.asarray(value))

    def get(self, array: Any) -> NDArray[Any]:
        """Download, after all that was started before."""
        host: NDArray[Any] = self.xp.asnumpy(array)
        return host

    def give(self, array: Any) -> Any:
        """The CuPy array itself."""
        return array

    def products(self, a: Any, b: Any, out: Any, *, tf32: bool = False) -> None:
        """By cuBLAS, in the asked-for mode, whatever another library has left switched on."""
        cublas = self.xp.cublas.cublas
        handle = self.xp.cuda.device.get_cublas_handle()
        mode = cublas.getMathMode(handle)
        cublas.setMathMode(handle, TF32_MATH if tf32 else cublas.CUBLAS_DEFAULT_MATH)
        try:
            self.xp.cublas.gemm("N", "T", a, b, out=out)
        finally:
            cublas.setMathMode(handle, mode)

    def launch(
        self, kernel: Kernel, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0
    ) -> None:
        """Start a kernel on CuPy's current stream.

        By CuPy, not by Numba: that wraps each array and looks up its type anew, warns of small
        grids, and would have to be told the stream.
        """
        if blocks == 0:
            return
        check_arguments(kernel.name, kernel.parameters, arguments, self.xp.ndarray)
        start = _loaded.get((self._device(), kernel.name)) or self._load(kernel)
        start((blocks,), (threads,), as_words(kernel.parameters, arguments), shared_bytes)

    def threads(self, wanted: int) -> int:
        """As wanted."""
        return wanted

    def free_bytes(self) -> int:
        """What the driver has left, and what CuPy's pool holds unused."""
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return int(free + self.xp.get_default_memory_pool().free_bytes())

    def release(self) -> None:
        """Give the pool's unused blocks back to the driver."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def _device(self) -> int:
        return int(self.xp.cuda.runtime.getDevice())

    def _load(self, kernel: Kernel) -> Any:
        """Compile unless that is done, and load into the GPU of now."""
        with _lock:
            if (self._device(), probe.tell.name) not in _loaded:
                start = self._function(probe.tell)
                probe.check(self.xp, start, lambda error: faults.is_device_fault(error, self.xp))
                _loaded[self._device(), probe.tell.name] = start
            place = (self._device(), kernel.name)
            if place not in _loaded:
                _loaded[place] = self._function(kernel)
            return _loaded[place]

    def _function(self, kernel: Kernel) -> Any:
        module = self.xp.cuda.Module()
        module.load(self._compiled(kernel))
        return module.get_function(cubins.entry(kernel))

    def _compiled(self, kernel: Kernel) -> bytes:
        try:
            return cubins.cubin(kernel, capability(self.xp))
        except Exception as error:
            of_a_part = isinstance(error, ImportError | RuntimeError | OSError)  # it is not there
            if faults.is_linker_fault(error) or (
                of_a_part and not faults.is_device_fault(error, self.xp)
            ):
                raise DeviceUnavailableError(_does_not_compile(error)) from error
            raise

    def _release_quietly(self, error: BaseException) -> None:
        """Free what the failed calls held, though their frames live on in the error."""
        traceback.clear_frames(error.__traceback__)
        try:
            self.release()
        except Exception as another:
            if not faults.is_device_fault(another, self.xp):
                raise
            # After a fault nothing can be given back; the first error is the one to tell.

    def _told(self, error: Exception) -> str | None:
        """What a caller reads of an error, if it is a fault of the GPU or of its tools."""
        if faults.is_compiler_fault(error):
            return _does_not_compile(error)
        if not faults.is_device_fault(error, self.xp):
            return None
        first = faults.first_fault(error, self.xp)
        return (
            f"the GPU failed ({type(first).__name__}: {first}); start the process again, and use "
            "device='cpu' if that repeats"
        )


def _does_not_compile(error: Exception) -> str:
    return (
        f"a kernel does not compile for this GPU ({type(error).__name__}: {error}); update the "
        f"driver and the packages ({INSTALL}), report it if that does not help, and use "
        "device='cpu' meanwhile"
    )

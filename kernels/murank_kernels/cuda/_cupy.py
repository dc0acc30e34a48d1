"""The real GPU: CuPy's arrays and cuBLAS, kernels by Numba, on CuPy's current stream."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from murank_kernels._exceptions import DeviceUnavailableError
from murank_kernels.cuda._kernel import Kernel, cuda


class CupyArrays:
    """Implements Arrays."""

    lanes = 32

    def __init__(self, cupy: Any) -> None:
        self.xp = cupy
        self.out_of_memory: type[BaseException] = cupy.cuda.memory.OutOfMemoryError

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Use the same GPU in Numba as in CuPy; name a fault, and give back cached memory."""
        try:
            cuda.select_device(self.xp.cuda.Device().id)
            yield
            self.xp.cuda.get_current_stream().synchronize()  # kernels fault later than they start
        except self.out_of_memory as error:
            self._release_quietly(error)
            raise DeviceUnavailableError(
                f"the GPU's memory is full ({error}); free some of it, ask for top_k, or use "
                "device='cpu'"
            ) from error
        except self._faults() as error:
            self._release_quietly(error)
            raise DeviceUnavailableError(
                f"the GPU failed ({type(error).__name__}: {error}); start the process again, and "
                "use device='cpu' if that repeats"
            ) from error

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

    def products(self, a: Any, b: Any, out: Any) -> None:
        """By cuBLAS, with the modes off that round float32 to fewer bits (TF32, emulation)."""
        cublas = self._cublas()
        handle = self.xp.cuda.device.get_cublas_handle()
        mode = cublas.getMathMode(handle)
        cublas.setMathMode(handle, cublas.CUBLAS_DEFAULT_MATH)
        try:
            self.xp.cublas.gemm("N", "T", a, b, out=out)
        finally:
            cublas.setMathMode(handle, mode)

    def launch(
        self, kernel: Kernel, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0
    ) -> None:
        """Start a kernel on CuPy's stream.

        Numba would wait for the stream at each array that CuPy hands over: they share it, so it
        need not.
        """
        if blocks == 0:
            return
        stream = cuda.external_stream(self.xp.cuda.get_current_stream().ptr)
        given = [
            cuda.as_cuda_array(a, sync=False) if hasattr(a, "__cuda_array_interface__") else a
            for a in arguments
        ]
        kernel.compiled[blocks, threads, stream, shared_bytes](*given)

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

    def _release_quietly(self, error: BaseException) -> None:
        """Free what the failed calls held, though their frames live on in the error."""
        traceback.clear_frames(error.__traceback__)
        try:
            self.release()
        except self._faults():
            return  # after a fault nothing can be given back; the first error is the one to tell

    def _cublas(self) -> Any:
        return self.xp.cublas.cublas

    def _faults(self) -> tuple[type[BaseException], ...]:
        from numba.cuda.cudadrv.driver import CudaAPIError, LinkerError
        from numba.cuda.cudadrv.error import CudaSupportError, NvvmError, NvvmSupportError

        cupy = self.xp
        return (
            cupy.cuda.runtime.CUDARuntimeError,
            cupy.cuda.driver.CUDADriverError,
            self._cublas().CUBLASError,
            CudaAPIError,
            LinkerError,
            CudaSupportError,
            NvvmError,
            NvvmSupportError,
        )

"""The GPU of this process."""

from murank_kernels.cuda import require
from murank_kernels.cuda.arrays import Arrays
from murank_kernels.cuda.cupy_arrays import CupyArrays
from murank_kernels.cuda.simulated import SimulatedArrays


def this_gpu() -> Arrays:
    """Return the GPU that CuPy uses now, or the simulator where that is switched on.

    Raises DeviceUnavailableError, with what to do, where there is none.
    """
    if require.simulated():
        return SimulatedArrays()
    return CupyArrays(require.usable_cupy())

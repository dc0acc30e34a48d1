"""The GPU of this process."""

from murank_kernels.cuda import _require
from murank_kernels.cuda._arrays import Arrays
from murank_kernels.cuda._cupy import CupyArrays
from murank_kernels.cuda._simulated import SimulatedArrays


def this_gpu() -> Arrays:
    """Return the GPU that CuPy uses now, or the simulator where that is switched on.

    Raises DeviceUnavailableError, with what to do, where there is none.
    """
    if _require.simulated():
        return SimulatedArrays()
    return CupyArrays(_require.usable_cupy())

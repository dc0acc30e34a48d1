"""Which GPU this is, and which libraries are here."""

from collections.abc import Iterator

from gpu.context import Context
from gpu.rows import CannotRun, Row

_PACKAGES = (
    "torch", "cupy", "numba", "numba-cuda", "onnxruntime", "onnxruntime-gpu", "tensorrt",
    "tensorrt-rtx", "pycuda", "numpy",
)  # fmt: skip


def rows(context: Context) -> Iterator[Row]:
    """The first row names the GPU."""
    from murank.doctor.packages import installed

    yield gpu_row() if context.on_gpu else Row(what="CPU", note="a trial of this script")
    found = installed()
    for name in _PACKAGES:
        version = found[name]
        yield Row(what=name, figure=version or "not installed")


def gpu_row() -> Row:
    """The first GPU as the driver names it. Raises CannotRun where there is none."""
    from murank import MachineError
    from murank.doctor.gpus import gpus
    from murank.machine.hardware import gpu_and_driver

    try:
        told = gpus()
    except MachineError as error:
        raise CannotRun(str(error)) from error
    if not told["gpus"]:
        raise CannotRun("NVIDIA's driver knows no GPU")
    first, named = told["gpus"][0], gpu_and_driver()
    driver = "of unknown version" if named is None else named[1]
    return Row(
        what=first["name"],
        figure=f"{first['memory_bytes'] / 2**30:.1f} GiB",
        note=f"compute capability {first['compute_capability']}, driver {driver}, CUDA "
        f"{told['cuda']}",
    )

"""What to do about a backend that is missing or fails."""

from collections.abc import Mapping

from murank.doctor.machine_report import MachineReport
from murank.doctor.packages import distributions
from murank.machine.library import pip_install

_JETSON = "on a Jetson see docs/jetson.md for where its packages come from"
Packages = Mapping[str, str | None]


def for_no_gpu(machine: MachineReport) -> str:
    """Return what would let a GPU be used."""
    if machine.is_jetson:
        return (
            "in a container start it with --runtime nvidia; else JetPack is incomplete: "
            "sudo apt install nvidia-jetpack"
        )
    if machine.nvidia_card:
        return "there is an NVIDIA card: install its driver, and in a container pass --gpus all"
    return "a GPU is not needed; an NVIDIA one is for larger models"


def for_onnxruntime(machine: MachineReport, packages: Packages) -> str:
    """Return how to get an onnxruntime that runs here at all."""
    if packages["onnxruntime"] or packages["onnxruntime-gpu"]:
        return "reinstall it: pip install --force-reinstall onnxruntime (or onnxruntime-gpu)"
    if machine.gpus:
        return f"{pip_install('gpu')} (or 'murank[cpu]'); {_JETSON}"
    return pip_install("cpu")


def for_cuda_provider(machine: MachineReport, packages: Packages) -> str:
    """Return how to get onnxruntime onto the GPU."""
    if packages["onnxruntime-gpu"] is None:
        if machine.is_jetson:
            return f"pip uninstall onnxruntime, and install onnxruntime-gpu: {_JETSON}"
        return f"pip uninstall onnxruntime, then {pip_install('gpu')}"
    return (
        f"this onnxruntime-gpu needs the CUDA and cuDNN that it was built for, and the driver runs "
        f"CUDA {machine.cuda}: update the driver, or install an onnxruntime-gpu for that CUDA"
        f"{_too_old(machine)}"
    )


def for_cuda_kernels(machine: MachineReport, packages: Packages) -> str:
    """Return how to get the kernels onto the GPU."""
    needed = [name for name in ("numba-cuda", "cupy") if packages[name] is None]
    if needed:
        return f"{' and '.join(needed)} missing: {pip_install('cuda')}"
    newer = [name for name in distributions("cupy") if _major(name) > _driver_major(machine)]
    if newer:
        return (
            f"{newer[0]} needs a driver for CUDA {_major(newer[0])}, this one runs {machine.cuda}: "
            f"update the driver, or install cupy-cuda{_driver_major(machine)}x instead"
        )
    return f"update the driver, numba-cuda and cupy together{_too_old(machine)}"


def for_tensorrt(machine: MachineReport, packages: Packages) -> str:
    """Return how to get TensorRT."""
    if packages["tensorrt"] is None and packages["tensorrt-rtx"] is None:
        if machine.is_jetson:
            return (
                "it comes with JetPack: sudo apt install tensorrt python3-libnvinfer, and make the "
                f"environment with --system-site-packages; {_JETSON}"
            )
        return "it is optional: TensorRT from NVIDIA, or pip install tensorrt-rtx"
    if packages["pycuda"] is None:
        return "pip install pycuda (it is compiled: nvcc must be on the PATH)"
    return "TensorRT, the driver and the GPU must fit each other: see NVIDIA's support matrix"


def for_openvino(packages: Packages) -> str:
    """Return how to get OpenVINO."""
    if packages["openvino"] is None:
        return (
            "it is optional, for x86 CPUs with bfloat16 products (AMX, AVX512_BF16): "
            f"{pip_install('openvino')}"
        )
    return "reinstall it: pip install --force-reinstall openvino"


def _too_old(machine: MachineReport) -> str:
    """CUDA 13 has no code for GPUs before Turing."""
    first = machine.gpus[0].compute_capability if machine.gpus else "99.0"
    if tuple(map(int, first.split("."))) < (7, 5):
        return f"; builds for CUDA 13 no longer run on compute capability {first}: take CUDA 12"
    return ""


def _driver_major(machine: MachineReport) -> int:
    return 99 if machine.cuda is None else int(machine.cuda.partition(".")[0])


def _major(cupy: str) -> int:
    """Return the CUDA of a CuPy: 13 for "cupy-cuda13x"; 0 where its name does not tell."""
    digits = cupy.rpartition("cuda")[2].rstrip("x")
    return int(digits) if digits.isdecimal() else 0

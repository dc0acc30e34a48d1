"""The machine that plans are made for: library, GPU, and what identifies both."""

from dataclasses import dataclass

from murank._exceptions import MachineError
from murank.backends.trt import api as _api
from murank.backends.trt import cuda as _cuda
from murank.backends.trt.api import Backend, TensorRT
from murank.backends.trt.cuda import Gpu
from murank.backends.trt.record import PlanPlatform

_OLDEST = (7, 5)  # tensor cores that TensorRT 10 has kernels for


@dataclass(frozen=True)
class PlanMachine:
    """A library, and what it makes plans for."""

    api: TensorRT
    target: PlanPlatform
    gpu: Gpu | None  # None: plans can be made (by TensorRT-RTX), not run


def this_machine(backend: Backend = "auto", index: int = 0) -> PlanMachine:
    """Return this machine with the library of first choice.

    Raises
    ------
    MachineError
        TensorRT or PyCUDA is not installed, no GPU can be used, or TensorRT has no plans for it.
    """
    api = _api.installed(backend)[0]
    machine = _machine(api, _cuda.open_gpu(index))
    check_supported(machine)
    return machine


def machines(index: int = 0) -> list[PlanMachine]:
    """Return this machine with each library that is installed, first choice first."""
    libraries = _api.installed()
    gpu = _cuda.open_gpu(index)
    return [_machine(api, gpu) for api in libraries]


def _machine(api: TensorRT, gpu: Gpu) -> PlanMachine:
    target = PlanPlatform(
        library=api.library,
        version=api.version,
        compute_capability=gpu.compute_capability,
        device=gpu.name,
        driver=gpu.driver,
    )
    return PlanMachine(api, target, gpu)


def check_supported(machine: PlanMachine) -> None:
    """Raise MachineError if the library makes no plans for this GPU."""
    api, has = machine.api, machine.target.compute_capability
    if api.is_rtx and capability_name(has) not in api.module.ComputeCapability.__members__:
        raise MachineError(
            f"{api.title} makes no plans for compute capability {has} ({machine.target.device}): "
            "install TensorRT, or run with providers='cuda'"
        )
    if tuple(map(int, has.split("."))) < _OLDEST:
        least = ".".join(map(str, _OLDEST))
        raise MachineError(
            f"compute capability {has} ({machine.target.device}) is below {least}, the oldest that "
            "TensorRT 10 knows: run with providers='cpu'"
        )


def capability_name(compute_capability: str) -> str:
    """Return the name that TensorRT-RTX has for it: "8.9" is SM89."""
    return "SM" + compute_capability.replace(".", "")

"""Devices that a plan knows: figures of their data sheets, and what is assumed of them.

Every rate is dense: where a data sheet gives figures with structured sparsity (two of four weights
zero, which murank's engines do not have), half of them stands here. DLAs are not counted: murank
runs on the GPU. Where a figure was derived and not read, `notes` says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from murank._exceptions import UsageError

Kind = Literal["jetson", "gpu", "cpu"]
Rates = Mapping[str, float]  # operations a second, by arithmetic
_T = 1e12
_GB = 1e9
_GIB = 1 << 30


@dataclass(frozen=True)
class Assumed:
    """What no data sheet says; the same for all devices of a kind."""

    compute: float  # share of the peak rate that products reach
    memory: float  # share of the bandwidth that all else reaches
    node_seconds: float  # to start a node
    usable: float  # share of the memory that is there for an engine
    base_bytes: int  # Python, onnxruntime, numba and the driver's context, before any weight
    why: str


@dataclass(frozen=True)
class Mode:
    """A power mode."""

    compute: float  # share of the largest rates
    bandwidth: float  # bytes a second


def capability_of(architecture: str) -> str:
    """Return the compute capability of a GPU's architecture: "sm_87" is "8.7"."""
    digits = architecture.removeprefix("sm_")
    return f"{digits[:-1]}.{digits[-1]}"


@dataclass(frozen=True)
class Device:
    """A device; rates in operations a second (a multiplication and an addition are two)."""

    name: str
    title: str
    kind: Kind
    architecture: str
    rates: Rates
    bandwidth: float  # bytes a second
    memory_bytes: int
    shared: bool  # CPU and GPU have one memory
    host_bandwidth: float  # of what stays on the CPU: retrieval and re-ranking
    assumed: Assumed
    source: str
    notes: tuple[str, ...] = ()
    modes: Mapping[str, Mode] | None = None

    @property
    def usable_bytes(self) -> int:
        """Memory that an engine may take."""
        return int(self.memory_bytes * self.assumed.usable)

    @property
    def capability(self) -> str:
        """Compute capability of a GPU: that of sm_87 is "8.7"."""
        return capability_of(self.architecture)

    def rate(self, arithmetic: str) -> float:
        """Peak rate of products; where there is none of a kind, that of fp32.

        Of fp32 it is not that of tf32: murank asks for that nowhere, unless `murank build` is told.
        """
        return self.rates.get(arithmetic, self.rates["fp32"])

    def in_mode(self, name: str | None) -> "Device":
        """Return the device in one of its power modes; UsageError if it has no such mode."""
        if name is None:
            return self
        modes = self.modes or {}
        if name not in modes:
            known = f"one of {', '.join(modes)}" if modes else "none is known of it"
            raise UsageError(f"--power-mode {name} is not a mode of {self.name}: {known}")
        mode = modes[name]
        rates = {kind: rate * mode.compute for kind, rate in self.rates.items()}
        title = f"{self.title}, mode {name}"
        return replace(self, title=title, rates=rates, bandwidth=mode.bandwidth)


_JETSON = Assumed(
    compute=0.35, memory=0.6, node_seconds=10e-6, usable=0.75, base_bytes=int(1.2 * _GIB),
    why="small batches fill a GPU badly; the system and the desktop take a quarter of the memory",
)  # fmt: skip
_GPU = Assumed(
    compute=0.35, memory=0.7, node_seconds=5e-6, usable=0.95, base_bytes=int(0.8 * _GIB),
    why="small batches fill a GPU badly; every node is a kernel to launch",
)  # fmt: skip
CPU = Assumed(
    compute=0.9, memory=1.0, node_seconds=0.6e-6, usable=0.9, base_bytes=int(0.15 * _GIB),
    why="the rates were measured on this machine, with large products; those of an engine are "
    "smaller",
)  # fmt: skip
_HOST = 20 * _GB  # of a server's memory, as one thread reads it: an assumption
_ORIN_NOTES = (
    "fp16 is half of int8, and tf32 half of fp16, as on other GPUs of compute capability 8.x",
    "fp32 is 2 x CUDA cores x clock",
)


def _orin(int8: float, fp32: float) -> Rates:
    """Rates of an Ampere GPU of compute capability 8.7, in TOPS and TFLOPS."""
    return {
        "int8": int8 * _T, "fp16": int8 / 2 * _T, "bf16": int8 / 2 * _T, "tf32": int8 / 4 * _T,
        "fp32": fp32 * _T,
    }  # fmt: skip


DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device(
            "orin-nano-8gb", "NVIDIA Jetson Orin Nano 8GB (MAXN SUPER)", "jetson", "sm_87",
            _orin(33, 2.09), 102 * _GB, 8 * _GIB, shared=True, host_bandwidth=_HOST,
            assumed=_JETSON,
            source="NVIDIA, Jetson Orin Nano Super Developer Kit: 67 INT8 TOPS sparse, 33 dense, "
            "17 FP16 TFLOPS, 1020 MHz, 102 GB/s; before JetPack 6.1: 40, 20, 10, 68 GB/s",
            notes=_ORIN_NOTES,
            modes={"super": Mode(1.0, 102 * _GB), "15w": Mode(20 / 33, 68 * _GB)},
        ),
        Device(
            "orin-nx-16gb", "NVIDIA Jetson Orin NX 16GB (25 W)", "jetson", "sm_87",
            _orin(30, 1.88), 102.4 * _GB, 16 * _GIB, shared=True, host_bandwidth=_HOST,
            assumed=_JETSON,
            source="NVIDIA, Jetson Orin NX Series: 100 INT8 TOPS sparse with both DLAs, 1024 CUDA "
            "and 32 tensor cores, 918 MHz, 102.4 GB/s",
            notes=(
                "the GPU's share of the 100 TOPS was not found in a data sheet: 30 is Orin Nano's "
                "33 (the same cores) at 918 instead of 1020 MHz",
                *_ORIN_NOTES,
            ),
        ),
        Device(
            "agx-orin-64gb", "NVIDIA Jetson AGX Orin 64GB (MAXN)", "jetson", "sm_87",
            _orin(85, 5.3), 204.8 * _GB, 64 * _GIB, shared=True, host_bandwidth=_HOST,
            assumed=_JETSON,
            source="NVIDIA, Jetson AGX Orin Series Technical Brief: GPU 170 INT8 TOPS sparse, 5.3 "
            "FP32 TFLOPS, 204.8 GB/s; GPU of other modes: NVIDIA, Deep-Learning-Accelerator-SW",
            notes=(*_ORIN_NOTES[:1], "bandwidth in other modes than MAXN was not found: the same"),
            modes={
                "maxn": Mode(1.0, 204.8 * _GB), "50w": Mode(109 / 171, 204.8 * _GB),
                "30w": Mode(41 / 171, 204.8 * _GB), "15w": Mode(14 / 171, 204.8 * _GB),
            },
        ),
        Device(
            "thor", "NVIDIA Jetson AGX Thor (T5000)", "jetson", "sm_110",
            {
                "fp8": 517.5 * _T, "int8": 517.5 * _T, "fp16": 258.75 * _T, "bf16": 258.75 * _T,
                "tf32": 129.4 * _T, "fp32": 8.06 * _T,
            },
            273 * _GB, 128 * _GIB, shared=True, host_bandwidth=_HOST, assumed=_JETSON,
            source="NVIDIA, Jetson Thor: 2070 FP4 TFLOPS sparse, 2560 CUDA cores, 1.57 GHz, "
            "128 GB, 273 GB/s",
            notes=(
                "only the FP4 figure was found: fp8 is a quarter of it, fp16 an eighth, tf32 a "
                "sixteenth (dense, halved by each step of width); int8 as fp8",
                _ORIN_NOTES[1],
            ),
        ),
        Device(
            "t4", "NVIDIA T4", "gpu", "sm_75",
            {"int8": 130 * _T, "fp16": 65 * _T, "fp32": 8.1 * _T},
            320 * _GB, 16 * _GIB, shared=False, host_bandwidth=_HOST, assumed=_GPU,
            source="NVIDIA T4 data sheet: 8.1 FP32 TFLOPS, 65 FP16, 130 INT8 TOPS, 320 GB/s, 16 GB",
            notes=("Turing has no TF32, bf16 or fp8",),
        ),
        Device(
            "l4", "NVIDIA L4", "gpu", "sm_89",
            {
                "fp8": 242.5 * _T, "int8": 242.5 * _T, "fp16": 121 * _T, "bf16": 121 * _T,
                "tf32": 60 * _T, "fp32": 30.3 * _T,
            },
            300 * _GB, 24 * _GIB, shared=False, host_bandwidth=_HOST, assumed=_GPU,
            source="NVIDIA L4 data sheet, with sparsity: 485 FP8 TFLOPS and INT8 TOPS, 242 FP16, "
            "120 TF32; without: 30.3 FP32; 300 GB/s, 24 GB",
        ),
        Device(
            "h200", "NVIDIA H200 SXM", "gpu", "sm_90",
            {
                "fp8": 1979 * _T, "int8": 1979 * _T, "fp16": 989.5 * _T, "bf16": 989.5 * _T,
                "tf32": 494.5 * _T, "fp32": 67 * _T,
            },
            4800 * _GB, 141 * _GIB, shared=False, host_bandwidth=_HOST, assumed=_GPU,
            source="NVIDIA H200 data sheet, with sparsity: 3958 FP8 TFLOPS and INT8 TOPS, 1979 "
            "FP16, 989 TF32; without: 67 FP32; 4.8 TB/s, 141 GB",
        ),
    )
}  # fmt: skip
NAMES = (*DEVICES, "cpu")  # that of "cpu" is measured: see `this_cpu`

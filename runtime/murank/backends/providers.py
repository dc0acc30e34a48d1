"""Which onnxruntime providers are asked for, which of them run, and which nodes did not follow."""

import contextlib
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, MachineError
from murank.machine.library import pip_install

Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
ON_GPU = (CUDA, TENSORRT)
NAMED: Mapping[str, tuple[str, ...]] = {
    "cpu": (CPU,),
    "cuda": (CUDA, CPU),
    "tensorrt": (TENSORRT, CUDA, CPU),
}
# Unless the user passes a list of his own. TF32 keeps 10 bits of a float32's mantissa, which parity
# does not survive; trying every convolution takes seconds at each new batch size; and an arena that
# doubles keeps up to twice of what is needed, on a device that is shared or small.
CUDA_OPTIONS: Mapping[str, str] = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
PLANS = "tensorrt-plans"  # what `murank build` made, without onnxruntime
OPENVINO = "openvino"  # on the CPU, or with a device of its behind it: "openvino:GPU"
PROVIDER_NAMES = ("auto", *NAMED, PLANS, OPENVINO)
_OPENVINO_DEVICE = re.compile(rf"{OPENVINO}(?::((?:CPU|GPU|NPU)(?:\.\d{{1,2}})?))?")
# What costs time in a graph. Arithmetic on shapes stays on the CPU on purpose.
_HEAVY = frozenset((
    "Attention", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "FusedConv", "FusedGemm",
    "FusedMatMul", "Gelu", "Gemm", "GroupQueryAttention", "LayerNormalization", "MatMul",
    "MatMulNBits", "MultiHeadAttention", "SimplifiedLayerNormalization",
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Softmax",
))  # fmt: skip


def wanted(providers: Providers, available: Sequence[str]) -> list[Any]:
    """Return what is passed to onnxruntime.

    Raises
    ------
    InputError
        They cannot be.
    MachineError
        This onnxruntime does not have the one that is named.
    """
    if not isinstance(providers, str):
        if not providers:
            raise InputError("providers is an empty list; name at least one, or pass 'auto'")
        _refuse_captured(providers)
        return list(providers)
    if providers == "auto":
        return _named("cuda" if CUDA in available else "cpu", available)
    if providers not in NAMED:
        known = ", ".join(PROVIDER_NAMES)
        raise InputError(f"providers must be one of {known}, or a list, got {providers!r}")
    if NAMED[providers][0] not in available:
        raise MachineError(
            f"this onnxruntime has no {NAMED[providers][0]}: put a build for GPUs in its place "
            f"({pip_install('gpu')}; on a Jetson see docs/jetson.md), and see `murank doctor`"
        )
    return _named(providers, available)


def openvino_device(providers: Providers) -> str | None:
    """Return OpenVINO's name of the device that is asked for; None: another backend is.

    Raises
    ------
    InputError
        OpenVINO is asked for, on something that is no single device.
    """
    if not isinstance(providers, str) or providers.partition(":")[0] != OPENVINO:
        return None
    found = _OPENVINO_DEVICE.fullmatch(providers)
    if found is None:
        raise InputError(
            f"{providers!r} names no one device of OpenVINO: pass {OPENVINO} (the CPU), "
            f"{OPENVINO}:GPU, {OPENVINO}:GPU.1 or {OPENVINO}:NPU"
        )
    return found[1] or "CPU"


def may_take_gpu(providers: Providers) -> bool:
    """Whether a GPU of NVIDIA may run the graphs, so that what they give lies in its memory.

    "auto" may. OpenVINO's devices give everything back to the host's memory.
    """
    if openvino_device(providers) is not None:
        return False
    named = NAMED.get(providers, (providers,)) if isinstance(providers, str) else providers
    return any(name_of(one) != CPU for one in named)


def _named(name: str, available: Sequence[str]) -> list[Any]:
    """Return the providers of a name that are there, CUDA with our options."""
    usable = [provider for provider in NAMED[name] if provider in available]
    return [(CUDA, dict(CUDA_OPTIONS)) if provider == CUDA else provider for provider in usable]


def name_of(provider: str | tuple[str, Mapping[str, Any]]) -> str:
    """Return the name of one, with or without options."""
    return provider if isinstance(provider, str) else provider[0]


def device_id(providers: Providers) -> int:
    """Return the GPU that the first provider's options name; 0 if none does."""
    first = providers[0]
    return 0 if isinstance(first, str) else int(first[1].get("device_id", 0))


def check_used(providers: Providers, asked: Sequence[Any], used: Sequence[str]) -> None:
    """Raise MachineError unless what was asked of onnxruntime first is used.

    A library that lists a provider may still fall back to the CPU, with a log line only.
    """
    first = name_of(asked[0])
    if first not in used:
        advice = "" if providers == "auto" else "; pass providers='auto' to accept that"
        raise MachineError(
            f"{first} was asked for, but onnxruntime could not use it here and fell back to "
            f"{', '.join(used)}{advice}"
        )


def check_placed(file: Path, asked: Providers, on_cpu: Mapping[str, int] | None) -> None:
    """A provider that is used may still leave nodes to the CPU, which halts the GPU at each."""
    if on_cpu is None or asked == "auto" or _first(asked) not in ON_GPU:
        return
    heavy = {name: count for name, count in on_cpu.items() if name in _HEAVY}
    if heavy:
        nodes = ", ".join(f"{count} {name}" for name, count in sorted(heavy.items()))
        raise MachineError(
            f"{file}: onnxruntime left {nodes} to the CPU, though {_first(asked)} was asked for; "
            "install a newer onnxruntime-gpu, or pass providers='auto' to accept that"
        )


def nodes_on_cpu(session: Any) -> Mapping[str, int] | None:
    """Count the nodes that the CPU runs, by operator; None where onnxruntime does not tell.

    It tells from 1.24 on, if the session was made with `session.record_ep_graph_assignment_info`.
    """
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return None
    parts = [part for part in ask() if part.ep_name == CPU]
    return Counter(node.op_type for part in parts for node in part.get_nodes())


def find_gpu_libraries(runtime: Any, asked: Sequence[Any]) -> None:
    """Let a GPU build of onnxruntime load CUDA and cuDNN from pip's packages, where they are."""
    preload = getattr(runtime, "preload_dlls", None)
    if preload is None or not any(name_of(one) in ON_GPU for one in asked):
        return
    # It prints what it does not find. What really lacks shows when a session is made.
    with contextlib.redirect_stdout(io.StringIO()):
        preload()


def _first(asked: Providers) -> str:
    return NAMED[asked][0] if isinstance(asked, str) else name_of(asked[0])


def _refuse_captured(providers: Sequence[str | tuple[str, Mapping[str, Any]]]) -> None:
    for provider in providers:
        options: Mapping[str, Any] = {} if isinstance(provider, str) else _options(provider)
        if str(options.get("enable_cuda_graph", "0")).lower() in ("1", "true"):
            raise InputError(
                "enable_cuda_graph replays one shape at fixed addresses, and murank's batches and "
                "prefixes have neither; leave it out"
            )


def _options(provider: tuple[str, Any]) -> Mapping[str, Any]:
    # What is no mapping is onnxruntime's to refuse.
    return provider[1] if isinstance(provider[1], Mapping) else {}

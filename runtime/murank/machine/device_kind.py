"""Devices that give the same numbers bit for bit, told apart by what their kernels depend on."""

import platform
from collections.abc import Mapping, Sequence

from murank.machine.cpu_flags import cpu_flags
from murank.machine.hardware import gpu_and_driver

# Instructions that libraries choose other kernels by, strongest first.
_STEPS = (
    "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "avx",
    "sve2", "sve", "i8mm", "bf16", "asimddp",
)  # fmt: skip
_BFLOAT16 = frozenset(("amx_bf16", "avx512_bf16", "bf16"))
_ON_CPU, _OPENVINO, _OPENVINO_CPU = "CPUExecutionProvider", "OpenVINO ", "OpenVINO CPU "
EXACT = "float32"


def device_kind(providers: Mapping[str, Sequence[str]]) -> str:
    """Return the kind that answers are of, given what runs each graph."""
    first = {names[0] for names in providers.values() if names}
    if first <= {_ON_CPU}:
        return _cpu()
    gpu = None if all(map(on_cpu, first)) else gpu_and_driver()
    return f"{', '.join(sorted(first))} on {gpu[0] if gpu else _cpu()}"


def on_cpu(provider: str) -> bool:
    """Whether what runs a graph runs it on the CPU."""
    return provider == _ON_CPU or provider.startswith(_OPENVINO_CPU)


def products_of(providers: Mapping[str, Sequence[str]]) -> str:
    """Return what the products of graphs are made in, given what runs each: see `Products`."""
    titles = (names[0] for names in providers.values() if names)
    asked = {title.split()[-1] for title in titles if title.startswith(_OPENVINO)}
    return min(asked - {EXACT}, default=EXACT)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16; also False where nothing can be known."""
    return not _BFLOAT16.isdisjoint(cpu_flags())


def _cpu() -> str:
    flags = cpu_flags()
    strongest = next((step for step in _STEPS if step in flags), "")
    return f"CPU {platform.machine()} {strongest}".rstrip()

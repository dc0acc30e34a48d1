"""Whether this CPU multiplies uint8 by int8 exactly, as engines with int8 weights need it."""

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_X86 = {"x86_64", "AMD64", "i686", "i386"}
_EXACT = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"}


def multiplies_exactly() -> bool:
    """Return False on an x86 CPU without VNNI; True also where nothing can be known.

    Older x86 instructions add two products in 16 bits, which is too few for onnxruntime's uint8
    activations: sums saturate, and answers change with no sign of it.
    """
    if platform.machine() not in _X86:
        return True
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return True
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return not flags or not _EXACT.isdisjoint(flags)

"""How this CPU multiplies uint8 by int8, as engines with int8 weights need it: by its flags."""

import platform

from murank.machine.cpu_flags import cpu_flags

_X86 = {"x86_64", "AMD64", "i686", "i386"}
_EXACT = ("amx_int8", "avx_vnni_int8", "avx512_vnni", "avx_vnni")  # the strongest first
_ARM = {"aarch64", "arm64"}
_ON_ARM = ("i8mm", "asimddp", "bf16")


def multiplies_exactly() -> bool:
    """Return False on an x86 CPU without VNNI; True also where nothing can be known.

    Older x86 instructions add two products in 16 bits, which is too few for uint8 by int8: sums
    saturate, and answers change with no sign of it. There onnxruntime is asked to make the weights
    uint8, whose products it adds in 32 bits.
    """
    flags = cpu_flags()
    return platform.machine() not in _X86 or not flags or not flags.isdisjoint(_EXACT)


def told() -> str | None:
    """Return what is known of integer products here, for people; None: nothing is."""
    flags, machine = cpu_flags(), platform.machine()
    if not flags:
        return None
    if machine in _ARM:
        has = ", ".join(one for one in _ON_ARM if one in flags)
        return f"{has or 'no asimddp'} (dot products: asimddp; matrices: i8mm); bf16 is not used"
    if machine not in _X86:
        return None
    exact = next((one for one in _EXACT if one in flags), None)
    return exact or "no VNNI: int8 and w8a16 by uint8 weights, exact and slower than with VNNI"

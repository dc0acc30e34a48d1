"""What instructions this CPU has, as Linux tells."""

from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_KEYS = ("flags", "Features")  # x86's, ARM's


def cpu_flags() -> frozenset[str]:
    """Return the flags of the first core; none where the system does not tell."""
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        next((line.split(":", 1)[1].split() for line in lines if line.startswith(_KEYS)), [])
    )

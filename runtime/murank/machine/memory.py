"""How much memory this process may take: one answer for everything that asks."""

import os
from pathlib import Path

from murank_kernels.machine.cgroup import memory_left, memory_limit

_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int | None:
    """Memory that may still be taken, within what the control groups leave; None: not known."""
    return _least(_free(), memory_left())


def total_bytes() -> int | None:
    """All memory, within the limits of the control groups; None: not known."""
    return _least(_physical(), memory_limit())


def _free() -> int | None:
    try:
        lines = _MEMINFO.read_text(errors="replace").splitlines()
    except OSError:
        return _physical()
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10  # always in kB
    return _physical()


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):  # not told on this system
        return None


def _least(*limits: int | None) -> int | None:
    return min((one for one in limits if one is not None), default=None)

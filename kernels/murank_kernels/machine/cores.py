"""How many threads work is worth on this machine, for this process: the one answer for all."""

import math
import os
from pathlib import Path

from murank_kernels.machine.cgroup import cpu_quota

_TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Physical cores that this process may use, at least 1.

    Counted among the CPUs of its affinity (a second hardware thread of a core adds nothing to
    matrix products), and no more than its cgroup's quota: a container with two CPUs' worth of time
    on a large machine would otherwise start a thread for each of the machine's cores, and be
    stopped for most of every period.
    """
    return within_quota(_physical_cores())


def within_quota(threads: int) -> int:
    """Return that many, or as many as the cgroup's quota has time for; at least 1."""
    quota = cpu_quota()
    return max(1, threads if quota is None else min(threads, math.ceil(quota)))


def _physical_cores() -> int:
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
    # Siblings name their core alike; a CPU that says nothing counts as one.
    names = {_siblings(cpu) or str(cpu) for cpu in cpus}
    return len(names)


def _siblings(cpu: int) -> str:
    try:
        return (_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return ""

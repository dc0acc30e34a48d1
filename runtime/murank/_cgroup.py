"""What the process's control group allows it: limits of its own folder and of those above."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_PROCESS = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def cpu_quota() -> float | None:
    """CPUs' worth of time; None: no limit, or none that can be read."""
    found = [
        _ratio(text.split())
        for text in (
            *_texts("", "cpu.max"),
            *_texts("cpu", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
        )
    ]
    return min((one for one in found if one is not None), default=None)


def memory_limit() -> int | None:
    """Bytes; None: no limit, or none that can be read."""
    texts = (*_texts("", "memory.max"), *_texts("memory", "memory.limit_in_bytes"))
    return min((int(text) for text in texts if text.isdecimal()), default=None)


def _ratio(words: list[str]) -> float | None:
    """Of version 2, "200000 100000", and of the two files of version 1; "max" or -1: no limit."""
    try:
        quota, period = (int(word) for word in words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _texts(controller: str, *names: str) -> Iterator[str]:
    """Yield what files of these names hold, for each folder that limits this process."""
    for folder in _folders(controller):
        files = [folder / name for name in names]
        if all(file.is_file() for file in files):
            with contextlib.suppress(OSError):
                yield " ".join(file.read_text().strip() for file in files)


def _folders(controller: str) -> Iterator[Path]:
    """Yield the process's folder and those above; controller "" is version 2's one hierarchy."""
    root = _ROOT / controller
    yield root
    try:
        lines = _PROCESS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            # In a container the path may be the host's: then there is no such folder here.
            folder = root / path.lstrip("/")
            yield from (one for one in (folder, *folder.parents) if root in one.parents)

"""What the process's control group allows it: limits of its own folder and of those above."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROCESS = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # version 1 writes a number near 2**63


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
    """Bytes that the process and its neighbours may have; None: no limit, or none to be read."""
    return min((limit for limit, _ in _memory()), default=None)


def memory_left() -> int | None:
    """Bytes that may still be taken; files that the system keeps for reuse count as free."""
    return min((max(0, limit - used) for limit, used in _memory()), default=None)


def _memory() -> Iterator[tuple[int, int]]:
    """Yield limit and use of each group that has a limit."""
    for controller, limits, use, cached in (
        ("", ("memory.max", "memory.high"), "memory.current", ""),
        ("memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_"),
    ):
        for folder in _folders(controller):
            found = [number for name in limits if (number := _number(folder / name)) is not None]
            if found and min(found) < _NO_LIMIT:
                reusable = _reusable(folder / "memory.stat", cached)
                yield min(found), max(0, (_number(folder / use) or 0) - reusable)


def _reusable(file: Path, prefix: str) -> int:
    words = [line.split() for line in _text(file).splitlines()]
    names = {f"{prefix}active_file", f"{prefix}inactive_file"}
    return sum(int(pair[1]) for pair in words if len(pair) == 2 and pair[0] in names)


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


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
        texts = [_text(folder / name).strip() for name in names]
        if all(texts):
            yield " ".join(texts)


def _folders(controller: str) -> list[Path]:
    """Return the process's folder and those above; controller "" is version 2's one hierarchy."""
    found: dict[Path, None] = {}
    for root, shown in _mounts(controller):
        found[root] = None
        for path in _paths(controller):
            # A mount may show a part of the tree only; the path may be one that is not shown here.
            inner = _below(path, shown)
            for place in (inner, *inner.parents):
                found[root / place] = None
    return list(found)


def _paths(controller: str) -> Iterator[PurePosixPath]:
    """Yield where the process is in the hierarchy of a controller."""
    for line in _text(_PROCESS).splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and controller in parts[1].split(","):
            yield PurePosixPath(parts[2])


def _below(path: PurePosixPath, shown: PurePosixPath) -> PurePosixPath:
    if ".." in path.parts:  # outside of the namespace
        return PurePosixPath()
    return path.relative_to(shown if path.is_relative_to(shown) else "/")


def _mounts(controller: str) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield where a hierarchy is mounted, and which part of it."""
    yield _ROOT / controller, PurePosixPath("/")
    for line in _text(_MOUNTS).splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        wanted = (
            controller in kind[2].split(",") and kind[0] == "cgroup"
            if controller
            else kind[0] == "cgroup2"
        )
        if wanted:
            yield Path(_unescaped(fields[4])), PurePosixPath(_unescaped(fields[3]))


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ")

"""What this machine tells of itself: memory of a process, processor, GPU, power mode.

Every question has None for an answer where there is nothing to read.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PROC, _SYS = Path("/proc"), Path("/sys")
_SECONDS = 10  # that a tool of the system may take
_GOVERNOR = "devices/system/cpu/cpu0/cpufreq/scaling_governor"


def resident_bytes(proc: Path = _PROC) -> int | None:
    """Memory of this process that is resident now."""
    return _status(proc, "VmRSS")


def peak_bytes(proc: Path = _PROC) -> int | None:
    """The largest it ever was."""
    return _status(proc, "VmHWM")


def cpu_model(proc: Path = _PROC) -> str | None:
    """What the processor is called; ARM kernels may not say."""
    for line in _text(proc / "cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and value.strip():
            return value.strip()
    return None


def board_model(proc: Path = _PROC) -> str | None:
    """What the device tree calls the board, as on Jetsons."""
    return _text(proc / "device-tree" / "model").strip("\0 \n") or None


def load_average() -> float | None:
    """Of the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def power_mode(sys: Path = _SYS) -> str | None:
    """The mode of a Jetson, else the frequency governor of the first processor."""
    for line in _output(["nvpmodel", "-q"]).splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == "nv power mode" and value.strip():
            return value.strip()
    return _text(sys / _GOVERNOR).strip() or None


def gpu_and_driver() -> tuple[str, str] | None:
    """Name and driver of the first GPU."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    first = _output(asked).partition("\n")[0]
    name, comma, driver = first.rpartition(",")
    return (name.strip(), driver.strip()) if comma else None


def visible_gpus() -> list[str]:
    """Names by which a process may choose among the GPUs of NVIDIA that this one sees."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    lines = [line for line in _output(["nvidia-smi", "-L"]).splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def device_bytes() -> int | None:
    """GPU memory of this process."""
    asked = [
        "nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits",
    ]  # fmt: skip
    total = None
    for line in _output(asked).splitlines():
        pid, _, mebibytes = line.partition(",")
        if pid.strip() == str(os.getpid()) and mebibytes.strip().isdigit():
            total = (total or 0) + (int(mebibytes) << 20)
    return total


def _status(proc: Path, key: str) -> int | None:
    return _kilobytes(proc / "self" / "status", key)


def _kilobytes(path: Path, key: str) -> int | None:
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) << 10  # always in kB
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _output(command: Sequence[str]) -> str:
    """Return what a tool prints; nothing if it is not here, or fails."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no text of anybody
            [program, *command[1:]], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""

"""What this machine is: nothing that names it, or anybody."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank._version import __version__
from murank.doctor.child import ProbeAnswer, ask
from murank.machine import hardware as _machine
from murank.machine import integer_products as _products
from murank.machine.memory import total_bytes
from murank_kernels.machine.cores import usable_cores

_ETC, _SYS = Path("/etc"), Path("/sys")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # maker, and first digits of the class, of a PCI device


@dataclass(frozen=True)
class ReportedGpu:
    """A GPU that the driver knows."""

    name: str
    compute_capability: str  # "8.7"
    memory_bytes: int


@dataclass(frozen=True)
class MachineReport:
    """What there is; None: not known, or not there."""

    murank: str
    python: str
    system: str
    processor: str | None
    integer_products: str | None  # by which instructions, for int8 and w8a16
    cores: int  # physical ones that this process may use
    memory_bytes: int  # that the process may use, by its control group
    board: str | None
    l4t: str | None  # Jetson Linux: "36.4.3"
    jetpack: str | None
    power_mode: str | None
    driver: str | None  # version
    cuda: str | None  # the newest that the driver runs: "13.0"
    gpus: tuple[ReportedGpu, ...]
    nvidia_card: bool  # one is on the PCI bus, whether the driver can use it or not
    why_no_gpu: str | None  # None: the driver knows one

    @property
    def is_jetson(self) -> bool:
        """Whether CPU and GPU share one memory, and JetPack brings the libraries."""
        return self.l4t is not None


def this_machine(etc: Path = _ETC, sys: Path = _SYS) -> MachineReport:
    """Look at this machine; the driver is asked in a process of its own."""
    asked = ask("driver")
    answer: dict[str, Any] = asked.more if asked.works else {"cuda": None, "gpus": []}
    gpus = tuple(ReportedGpu(**gpu) for gpu in answer["gpus"])
    named = _machine.gpu_and_driver()
    l4t = l4t_release(etc)
    return MachineReport(
        murank=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_machine.cpu_model(),
        integer_products=_products.told(),
        cores=usable_cores(),
        memory_bytes=total_bytes() or 0,
        board=_machine.board_model(),
        l4t=l4t,
        jetpack=None if l4t is None else jetpack(l4t),
        power_mode=_machine.power_mode(),
        driver=None if named is None else named[1],
        cuda=answer["cuda"],
        gpus=gpus,
        nvidia_card=has_nvidia_card(sys),
        why_no_gpu=None if gpus else _why_not(asked),
    )


def l4t_release(etc: Path = _ETC) -> str | None:
    """Return the release of Jetson Linux: "36.4.3"; None elsewhere."""
    try:
        first = (etc / "nv_tegra_release").read_text(errors="replace").partition("\n")[0]
    except OSError:
        return None
    words = first.replace(",", " ").split()  # "# R36 (release), REVISION: 4.3, GCID: ..."
    major = next((word[1:] for word in words if word[:1] == "R" and word[1:].isdecimal()), None)
    if major is None:
        return None
    after = words[words.index("REVISION:") + 1 :] if "REVISION:" in words else []
    return f"{major}.{after[0]}" if after else major


def jetpack(l4t: str) -> str | None:
    """Return the JetPack that a release of Jetson Linux belongs to, as exactly as is known."""
    installed = _machine._output(["dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack"])
    if installed.strip():
        return installed.strip().partition("+")[0]
    major = int(l4t.partition(".")[0])
    return {35: "5", 36: "6"}.get(major, "7" if major >= 38 else None)


def has_nvidia_card(sys: Path = _SYS) -> bool:
    """Whether a display device of NVIDIA is on the PCI bus, with a driver or without."""
    for device in (sys / "bus" / "pci" / "devices").glob("*"):
        if _machine._text(device / "vendor").strip() == _NVIDIA and _machine._text(
            device / "class"
        ).startswith(_DISPLAY):
            return True
    return False


def _why_not(asked: ProbeAnswer) -> str:
    return "NVIDIA's driver knows no GPU" if asked.works else asked.said

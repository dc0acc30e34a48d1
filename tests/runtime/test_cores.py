"""Cores of made-up machines: affinity, hardware threads and quotas."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from murank import _cores
from murank._cores import usable_cores

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a function that makes a machine of so many cores."""

    def make(cores: int, *, threads: int = 1, allowed: set[int] | None = None) -> None:
        for cpu in range(cores * threads):
            siblings = ",".join(str(cpu % cores + cores * i) for i in range(threads))
            folder = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(siblings + "\n")
        cpus = allowed or set(range(cores * threads))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: cpus)
        monkeypatch.setattr(_cores, "_TOPOLOGY", tmp_path / "cpu")
        monkeypatch.setattr(_cores, "_CGROUP", tmp_path / "cgroup")

    return make


def write(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_hardware_threads_are_no_cores(machine: Machine) -> None:
    machine(8, threads=2)
    assert usable_cores() == 8


def test_affinity(machine: Machine) -> None:
    machine(8, threads=2, allowed={0, 8, 3})  # both threads of core 0, one of core 3
    assert usable_cores() == 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu.max": "nonsense\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_quota(machine: Machine, tmp_path: Path, files: dict[str, str], cores: int) -> None:
    machine(8)
    write(tmp_path, files)
    assert usable_cores() == cores


def test_a_machine_that_tells_nothing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(4)
    monkeypatch.setattr(_cores, "_TOPOLOGY", tmp_path / "nothing")
    assert usable_cores() == 4
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1

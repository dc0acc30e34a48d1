"""Cores of made-up machines: affinity, hardware threads and quotas."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from murank import _cgroup, _cores
from murank._cgroup import memory_limit
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
        monkeypatch.setattr(_cgroup, "_ROOT", tmp_path / "cgroup")
        monkeypatch.setattr(_cgroup, "_PROCESS", tmp_path / "cgroup-of-process")

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


@pytest.mark.parametrize(
    ("process", "files", "cores"),
    [
        ("0::/a.slice/b.service\n", {"a.slice/cpu.max": "300000 100000"}, 3),
        ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "200000 100000"}, 2),
        (
            "0::/a.slice/b.service\n",
            {"a.slice/cpu.max": "100000 100000", "a.slice/b.service/cpu.max": "max 100000"},
            1,
        ),
        ("0::/elsewhere\n", {"a.slice/cpu.max": "300000 100000"}, 8),
        (
            "4:cpu,cpuacct:/docker/7\n5:memory:/m\n",
            {"cpu/docker/7/cpu.cfs_quota_us": "500000", "cpu/docker/7/cpu.cfs_period_us": "100000"},
            5,
        ),
    ],
)
def test_quota_of_a_service(
    machine: Machine, tmp_path: Path, process: str, files: dict[str, str], cores: int
) -> None:
    machine(8)
    (tmp_path / "cgroup-of-process").write_text(process)
    write(tmp_path, files)
    assert usable_cores() == cores


def test_memory_limit(machine: Machine, tmp_path: Path) -> None:
    machine(1)
    assert memory_limit() is None
    (tmp_path / "cgroup-of-process").write_text("0::/a/b\n")
    write(tmp_path, {"a/memory.max": "4096\n", "a/b/memory.max": "max\n"})
    assert memory_limit() == 4096
    write(tmp_path, {"memory/memory.limit_in_bytes": "1024\n"})
    assert memory_limit() == 1024


def test_a_machine_that_tells_nothing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(4)
    monkeypatch.setattr(_cores, "_TOPOLOGY", tmp_path / "nothing")
    assert usable_cores() == 4
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1

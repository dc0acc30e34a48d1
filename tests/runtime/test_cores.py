"""Cores of made-up machines: affinity, hardware threads and quotas."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numba
import pytest

from murank.cli.parser import threads
from murank.doctor.child import ProbeAnswer
from murank.machine import memory as _memory
from murank.machine.cores import decoding_threads
from murank_kernels.loops import parallel
from murank_kernels.machine import cgroup
from murank_kernels.machine import cores as core_count
from murank_kernels.machine.cgroup import memory_left, memory_limit
from murank_kernels.machine.cores import usable_cores

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
        monkeypatch.setattr(core_count, "_TOPOLOGY", tmp_path / "cpu")
        monkeypatch.setattr(cgroup, "_ROOT", tmp_path / "cgroup")
        monkeypatch.setattr(cgroup, "_PROCESS", tmp_path / "cgroup-of-process")
        monkeypatch.setattr(cgroup, "_MOUNTS", tmp_path / "mountinfo")
        monkeypatch.setattr(_memory, "_MEMINFO", tmp_path / "meminfo")

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


@pytest.mark.parametrize(("quota", "workers"), [(50_000, 1), (150_000, 2), (300_000, 3)])
def test_workers_of_kernels(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, workers: int
) -> None:
    """Numba counts the CPUs of the affinity, and nothing that a quota takes away."""
    machine(8)
    write(tmp_path, {"cpu.max": f"{quota} 100000\n"})
    monkeypatch.setattr(numba, "get_num_threads", lambda: 8)
    monkeypatch.setattr(parallel._single_threaded_blas, "enter", lambda: 8)
    monkeypatch.setattr(parallel._single_threaded_blas, "leave", lambda: None)
    parallel._most.cache_clear()
    try:
        with parallel.workers() as found:
            assert found == workers
    finally:
        parallel._most.cache_clear()


def test_threads_that_can_be_asked_for(machine: Machine, tmp_path: Path) -> None:
    machine(8)
    assert threads("64") == 64
    write(tmp_path, {"cpu.max": "200000 100000\n"})
    assert threads("16") == 16
    with pytest.raises(argparse.ArgumentTypeError, match="at most 16"):
        threads("17")


@pytest.mark.parametrize(("asked", "warned"), [("8", False), ("9", True), ("64", True)])
def test_more_threads_than_cores(
    machine: Machine, caplog: pytest.LogCaptureFixture, asked: str, warned: bool
) -> None:
    """Of a core's two hardware threads one counts."""
    machine(8, threads=2)
    assert threads(asked) == int(asked)
    assert [f"--threads {asked} " in text for text in caplog.messages] == [True] * warned


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


def test_memory_of_no_limit(machine: Machine, tmp_path: Path) -> None:
    machine(1)
    write(tmp_path, {"memory.max": "max\n", "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"})
    assert memory_limit() is None
    assert memory_left() is None


def test_memory_left(machine: Machine, tmp_path: Path) -> None:
    """Of the group that leaves the least; the page cache is given back."""
    machine(1)
    (tmp_path / "cgroup-of-process").write_text("0::/a/b\n")
    write(tmp_path, {"a/memory.max": "9000", "a/memory.current": "4000"})
    write(tmp_path, {"a/memory.stat": "anon 1000\ninactive_file 2500\nactive_file 500\n"})
    assert (memory_limit(), memory_left()) == (9000, 8000)
    write(tmp_path, {"a/b/memory.max": "max", "a/b/memory.high": "5000"})
    assert memory_limit() == 5000
    write(tmp_path, {"a/b/memory.current": "4999"})
    assert memory_left() == 1
    write(tmp_path, {"memory/memory.limit_in_bytes": "100", "memory/memory.usage_in_bytes": "200"})
    assert (memory_limit(), memory_left()) == (100, 0)


def test_mounts_elsewhere(machine: Machine, tmp_path: Path) -> None:
    """Hybrid systems, and a container whose mount shows its own part of the host's tree."""
    machine(8)
    (tmp_path / "cgroup-of-process").write_text("0::/u/x\n3:cpu,cpuacct:/docker/7/inner\n")
    (tmp_path / "mountinfo").write_text(
        f"30 1 0:26 / {tmp_path}/two\\040v rw - cgroup2 cgroup2 rw\n"
        f"31 1 0:27 /docker/7 {tmp_path}/one rw master:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "not a line of it\n"
    )
    write(tmp_path, {"../two v/u/memory.max": "4096"})
    write(tmp_path, {"../one/inner/cpu.cfs_quota_us": "200000"})
    write(tmp_path, {"../one/inner/cpu.cfs_period_us": "100000"})
    assert memory_limit() == 4096
    assert usable_cores() == 2


def test_a_group_outside_of_the_namespace(machine: Machine, tmp_path: Path) -> None:
    machine(8)
    (tmp_path / "cgroup-of-process").write_text("0::/../../other\nbroken\n")
    write(tmp_path, {"memory.max": "4096", "../other/memory.max": "1"})
    assert memory_limit() == 4096


def test_available_memory(machine: Machine, tmp_path: Path) -> None:
    machine(1)
    (tmp_path / "meminfo").write_text("MemFree:  1 kB\nMemAvailable:    4096 kB\n")
    assert _memory.available_bytes() == 4 << 20
    write(tmp_path, {"memory.max": "1048576\n"})
    assert _memory.available_bytes() == _memory.total_bytes() == 1 << 20
    write(tmp_path, {"memory.max": "9999999999999\n"})
    assert _memory.available_bytes() == 4 << 20


def test_everybody_gives_one_answer(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What plan, doctor and the decoding threads say of a service with limits of its own."""
    from murank.doctor.machine_report import this_machine

    machine(8)
    (tmp_path / "meminfo").write_text("MemAvailable:    4096 kB\n")
    (tmp_path / "cgroup-of-process").write_text("0::/system.slice/murank.service\n")
    write(tmp_path, {"system.slice/murank.service/memory.max": "1048576"})
    write(tmp_path, {"system.slice/murank.service/cpu.max": "200000 100000"})
    monkeypatch.setattr(
        "murank.doctor.machine_report.ask", lambda _: ProbeAnswer(works=False, said="none")
    )
    found = this_machine()
    assert _memory.available_bytes() == found.memory_bytes == 1 << 20
    assert decoding_threads() == found.cores == 2


def test_a_machine_that_tells_nothing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(4)
    monkeypatch.setattr(core_count, "_TOPOLOGY", tmp_path / "nothing")
    assert usable_cores() == 4
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.parametrize("meminfo", [None, "MemTotal: 9 kB\n"])
def test_memory_where_the_system_tells_less(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meminfo: str | None
) -> None:
    """What is free is unknown: all there is stands for it; and that may be unknown, too."""
    machine(2)
    if meminfo is not None:
        (tmp_path / "meminfo").write_text(meminfo)
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 500}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert _memory.available_bytes() == _memory.total_bytes() == 4096 * 500

    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", unknown)
    assert _memory.available_bytes() is None
    assert _memory.total_bytes() is None

"""Actors of Ray against a process of this machine: mu of a job whose features are known.

A section of scored_jobs.py. Both run one thread; rates are of the middle of the stage, when all
have started; scorer CPU is of the processes that ask the engine, the loading of it included.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS = 1
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"node_ip_address": "127.0.0.1", "object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **node})
for _ in range(int(sys.argv[1])):
    cluster.add_node(num_cpus=1, **node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Asked:
    """What one run took."""

    scorer: float  # CPU seconds of those who ask the engine
    rate: float  # pairs a second, start and end apart


def compare(setting: Any, run: Any) -> None:
    """Print it; `setting` and `run` are those of scored_jobs.py."""
    os.environ.update(_LOOPBACK, MURANK_BENCH=str(os.getpid()))
    run(setting.score("base", "--no-mu"))
    found: dict[str, list[Asked]] = {}
    for turn in range(ROUNDS):
        name = f"here-{turn}"
        found.setdefault("--workers 1", []).append(_asked(setting, run, name, "1"))
        for nodes in (1, 2):
            with _cluster(nodes) as address:
                asked = _asked(setting, run, f"ray-{nodes}-{turn}", f"ray:{address}")
            found.setdefault(f"ray, {nodes} x 1 CPU", []).append(asked)
    print(f"\n{setting.queries:,} queries by actors of Ray, medians of {ROUNDS} rounds in turn")
    for name, several in found.items():
        rate, scorer = (median(getattr(one, key) for one in several) for key in ("rate", "scorer"))
        print(f"  {name:<16} {rate:7.0f} pairs/s  {scorer:6.1f} CPU s of the scorer", flush=True)


def _asked(setting: Any, run: Any, job: str, workers: str) -> Asked:
    shutil.copytree(setting.place / "base", setting.place / job)
    progress = setting.place / f"{job}.jsonl"
    with _watched() as seconds:
        options = ("--workers", workers, "--threads", 1, "--overwrite", "--progress", progress)
        run(setting.score(job, "--candidates", 10, *options))
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    marks = [
        (datetime.fromisoformat(line["time"]), line["done"])
        for line in lines
        if line["stage"] == "mu" and 0.2 < line["done"] / line["total"] < 0.95
    ]
    (start, few), (end, many) = marks[0], marks[-1]
    return Asked(sum(seconds.values()), (many - few) / (end - start).total_seconds())


@contextmanager
def _watched() -> Iterator[dict[int, float]]:
    """Yield what becomes CPU seconds of the processes of ours that ask an engine."""
    seconds: dict[int, float] = {}
    is_done = threading.Event()

    def look() -> None:
        while not is_done.wait(0.2):
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal() and _asks(entry):
                    seconds[int(entry.name)] = _cpu(entry)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seconds
    finally:
        is_done.set()
        thread.join()


def _asks(process: Path) -> bool:
    try:
        if b"murank.crew.hand" not in (process / "cmdline").read_bytes():
            return False
        return f"MURANK_BENCH={os.getpid()}\0".encode() in (process / "environ").read_bytes()
    except OSError:
        return False


def _cpu(process: Path) -> float:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def _cluster(nodes: int) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, str(nodes)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()

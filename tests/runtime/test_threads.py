"""How many threads work: those that were asked for, and where nobody asked, the cores there are.

Counted, not timed, in processes of their own: by the CPU seconds that the kernel keeps of each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from types import SimpleNamespace
from typing import Any

import pytest
from wide_engine import SHIPPED

from murank.jobs import crews as _crews
from murank.jobs import engine_work as _work
from murank.jobs.crews import Workers, crew_of
from murank.jobs.job_units import EmbedUnit
from murank.jobs.lazy_engine import LazyEngine
from murank.machine import cores as _cores

CHILD = Path(__file__).parents[1] / "counted_threads.py"
GRAPHS = ("encoder", "vision", "prefill", "score")
on_linux = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no account of threads"
)


def counted(providers: str, threads: int, plans: Path) -> Any:
    pytest.importorskip("onnxruntime" if providers == "cpu" else "openvino")
    done = subprocess.run(
        [sys.executable, CHILD, SHIPPED, providers, str(threads), plans],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, text=True, check=True, timeout=600,
    )  # fmt: skip
    return json.loads(done.stdout)


@contextmanager
def one_core() -> Iterator[None]:
    """Of those that this thread may use; children inherit it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@on_linux
@pytest.mark.parametrize("providers", ["cpu", "openvino"])
def test_one_thread_where_one_is_asked_for(providers: str, tmp_path: Path) -> None:
    found = counted(providers, 1, tmp_path)
    assert found["worked"] == dict.fromkeys(GRAPHS, 1)
    assert found["bound"] == 0, "two processes would fight for one core"


@on_linux
@pytest.mark.parametrize("providers", ["cpu", "openvino"])
def test_one_thread_where_the_process_may_use_one_core(providers: str, tmp_path: Path) -> None:
    with one_core():
        found = counted(providers, 0, tmp_path)
    assert found["worked"] == dict.fromkeys(GRAPHS, 1)


@on_linux
def test_no_more_than_were_asked_for(tmp_path: Path) -> None:
    """A graph has a pool of its own in onnxruntime; OpenVINO's threads come from one of all."""
    assert max(counted("cpu", 2, tmp_path)["worked"].values()) <= 2
    assert counted("openvino", 2, tmp_path)["bound"] == 0


@pytest.mark.parametrize(("workers", "most"), [(1, 4), (2, 4), (4, 2), (8, 1), (16, 1)])
def test_workers_decode_on_their_share_of_the_cores(
    workers: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def processes(make: Any, *_: object) -> Any:
        made.append(make)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(_crews, "usable_cores", lambda: 8)
    monkeypatch.setattr(_cores, "usable_cores", lambda: 8)
    monkeypatch.setattr(_crews, "Processes", processes)
    monkeypatch.setattr(LazyEngine, "loaded", None)
    monkeypatch.setattr(_work, "_read", lambda *_: get_ident())
    with crew_of(Workers(workers), LazyEngine(SHIPPED, ["encoder"], {"threads": 1})):
        work = made[0]()
    assert isinstance(work._threads, ThreadPoolExecutor)
    begun = work.begin(EmbedUnit(tuple(range(99)), ("a.png",) * 99))
    assert len({one.result() for one in begun}) <= most
    assert work._threads._max_workers == most

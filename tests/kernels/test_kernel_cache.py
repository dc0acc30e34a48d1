"""Where compiled kernels are kept, and what happens where they cannot be."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from numba import config

import murank_kernels
from murank_kernels.loops import compiled, compiling
from murank_kernels.loops.compiling import told_of_compiling

# The folder may be read-only for root, too, if it is no folder at all.
CALL = """
import json, numpy, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from murank_kernels import smallest_k
    from murank_kernels.tiles.selection import select_rows
    found = smallest_k(numpy.array([[3.0, 1.0, 2.0]], numpy.float32), 2)[1].tolist()
stats = select_rows.stats
print(json.dumps([found, [str(one.message) for one in told], sum(stats.cache_hits.values())]))
"""
KERNEL = """
from murank_kernels.loops.compiled import compiled

@compiled
def one_more(x):
    return x + 1
"""
Call = Callable[[], tuple[list[str], int]]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the kernels, where nothing is compiled."""
    to = tmp_path / "kernels"
    shutil.copytree(
        Path(murank_kernels.__file__).parent, to / "murank_kernels",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    return to


def test_no_place_at_all(package: Path) -> None:
    """All of the package, in a process of its own: kernels look for a place as they are loaded."""
    for file in package.rglob("__init__.py"):
        nowhere = file.with_name("__pycache__")
        nowhere.write_text("")
    environment = {**os.environ, "PYTHONPATH": str(package), "HOME": "/proc/nobody"}
    environment |= {"XDG_CACHE_HOME": "/proc/nobody", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["NUMBA_CACHE_DIR"] = str(nowhere)
    done = subprocess.run(
        [sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, told, hits = json.loads(done.stdout)
    assert (found, hits) == ([[1, 2]], 0)
    assert ["NUMBA_CACHE_DIR" in one for one in told] == [True]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the kernel below is kept."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def call(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Load one small kernel and call it as a new process would; what is told, hits of the cache."""
    del cache
    file = tmp_path / "one_kernel.py"
    file.write_text(KERNEL)

    def call() -> tuple[list[str], int]:
        monkeypatch.setattr(compiled, "_warned", False)
        monkeypatch.setattr(compiled, "_caches", [])
        spec = importlib.util.spec_from_file_location("one_kernel", file)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            spec.loader.exec_module(module)
            assert module.one_more(1) == 2
        return [str(one.message) for one in told], sum(module.one_more.stats.cache_hits.values())

    return call


def test_damaged_files_are_replaced(cache: Path, call: Call) -> None:
    assert call() == ([], 0)
    assert call() == ([], 1)
    for suffix in ("nbi", "nbc"):
        (file,) = cache.rglob(f"one_kernel.*.{suffix}")
        file.write_bytes(b"")
        told, hits = call()
        assert ["NUMBA_CACHE_DIR" in one for one in told] == [True]
        assert hits == 0
        assert call() == ([], 1)


class Timer:
    """Fires at once where nothing is to be waited for, else never."""

    asked: ClassVar[list[float]] = []

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        self.asked.append(seconds)
        self.start = function if seconds == 0 else lambda: None

    def cancel(self) -> None:
        """Do nothing: it does not wait."""


def test_who_wants_to_know_is_told_once_where_kernels_are_compiled_for_long(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murank_kernels.loops.compiling.threading.Timer", Timer)
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    told: list[int] = []
    with told_of_compiling(lambda: told.append(1)):
        pass
    call()
    assert told == []  # nobody asked any more
    with told_of_compiling(lambda: told.append(2)):
        call()
    assert told == []  # it was kept
    config.CACHE_DIR += "-of-another"
    with told_of_compiling(lambda: told.append(3)):
        call()
        config.CACHE_DIR += "-again"
        call()
    assert told == [3]


def test_a_moment_of_compiling_needs_no_word(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds add up, and what one kernel compiles for another is not counted twice."""
    now = [0.0]
    monkeypatch.setattr("murank_kernels.loops.compiling.threading.Timer", Timer)
    monkeypatch.setattr("murank_kernels.loops.compiling.time.monotonic", lambda: now[0])
    monkeypatch.setattr(Timer, "asked", [])
    told: list[int] = []
    with told_of_compiling(lambda: told.append(1)):
        for seconds in (0.25, 0.5, 0.75):
            compiling.compiling_begins()
            compiling.compiling_begins()
            now[0] += seconds
            compiling.compiling_ends()
            compiling.compiling_ends()
        assert told == []
        call()
    assert Timer.asked == [1.0, 0.75, 0.25, 0.0]
    assert told == [1]


def test_a_filled_cache_that_is_read_only(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba itself would pass over it."""

    def refuse(*_given: object, **_options: object) -> None:
        raise OSError(30, "Read-only file system")

    assert call() == ([], 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert call() == ([], 1)

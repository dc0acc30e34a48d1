"""Where compiled kernels are kept, and what happens where they cannot be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import murank_kernels

# One small kernel is enough; the folder may be read-only for root, too, if it is no folder at all.
CALL = """
import json, numpy, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from murank_kernels import _compiled, smallest_k
    from murank_kernels._selection import select_rows
    found = smallest_k(numpy.array([[3.0, 1.0, 2.0]], numpy.float32), 2)[1].tolist()
stats = select_rows.stats
print(json.dumps([found, [str(one.message) for one in told], sum(stats.cache_hits.values())]))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the kernels, where nothing is compiled."""
    to = tmp_path / "kernels"
    shutil.copytree(
        Path(murank_kernels.__file__).parent, to / "murank_kernels",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    return to


def call(package: Path, cache: object = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package), "HOME": "/proc/nobody"}
    environment |= {"XDG_CACHE_HOME": "/proc/nobody", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["NUMBA_CACHE_DIR"] = "" if cache is None else str(cache)
    done = subprocess.run(
        [sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def no_folder(path: Path) -> None:
    """Make a folder impossible at this place."""
    path.unlink(missing_ok=True)
    path.write_text("")


def test_no_place_at_all(package: Path) -> None:
    no_folder(package / "murank_kernels" / "__pycache__")
    is_told_once(call(package, package / "murank_kernels" / "__pycache__"))


def test_damaged_files_are_replaced(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert call(package, cache) == "[[[1, 2]], [], 0]"
    assert call(package, cache) == "[[[1, 2]], [], 1]"
    for suffix in ("nbi", "nbc"):
        for file in cache.rglob(f"_selection.*.{suffix}"):
            file.write_bytes(b"")
        is_told_once(call(package, cache))
        assert call(package, cache) == "[[[1, 2]], [], 1]"


def is_told_once(output: str) -> None:
    found, told, hits = json.loads(output)
    assert (found, hits) == ([[1, 2]], 0)
    assert ["NUMBA_CACHE_DIR" in one for one in told] == [True]


WITHOUT_WRITING = """
import os, tempfile
def refuse(*_, **__):
    raise OSError(30, "Read-only file system")
tempfile.TemporaryFile = refuse
"""


def test_a_filled_cache_that_is_read_only(package: Path, tmp_path: Path) -> None:
    """Numba itself would pass over it."""
    cache = tmp_path / "cache"
    assert call(package, cache) == "[[[1, 2]], [], 0]"
    (package / "sitecustomize.py").write_text(WITHOUT_WRITING)
    assert call(package, cache) == "[[[1, 2]], [], 1]"

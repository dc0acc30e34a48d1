"""A cache of vision tokens in a folder, and what tests put there."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from murank.engine.disk_cache import DiskCache

SHAPE, DTYPE = (2, 3), np.dtype(np.float32)
ENGINE, OTHER = "ab" * 32, "ab" * 8 + "cd" * 24  # one folder for both
KEY, SECOND, THIRD = (digit * 64 for digit in "123")
BYTES = 2 * 3 * 4 + 32  # of a file
FOREIGN = ("notes.txt", "k" * 64, "1" * 63, ".hidden", ".murank-batch")


def values(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def held(disk: DiskCache, *keys: str) -> list[str]:
    return [key for key in keys if disk.get(key, SHAPE, DTYPE) is not None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache"


@pytest.fixture
def disk(root: Path) -> DiskCache:
    return DiskCache(root, ENGINE)


@pytest.fixture
def folder(disk: DiskCache, root: Path) -> Path:
    """Where `disk` keeps its files."""
    del disk
    return root / f"vision-{ENGINE[:16]}"


Place = Callable[[Path, str], Path]


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86400
    os.utime(path, (then, then))

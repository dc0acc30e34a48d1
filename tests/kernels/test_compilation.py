"""Importing compiles nothing, and what is compiled later is kept on disk."""

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import murank_kernels

LIST_KERNELS = """
import importlib, json, pkgutil

import murank_kernels
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

kernels = {}
for info in pkgutil.walk_packages(murank_kernels.__path__, "murank_kernels."):
    if info.name.startswith("murank_kernels.cuda."):
        continue  # compiled by another compiler, with a cache of its own
    for name, value in vars(importlib.import_module(info.name)).items():
        if isinstance(value, Dispatcher):
            cached = not isinstance(value._cache, NullCache)
            kernels[f"{info.name}.{name}"] = [len(value.signatures), cached]
print(json.dumps(kernels))
"""


@lru_cache
def kernels() -> dict[str, tuple[int, bool]]:
    """Name -> (compiled signatures, cached on disk), in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(murank_kernels.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", LIST_KERNELS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[int, bool]] = json.loads(done.stdout)
    assert found
    return found


def test_import_compiles_nothing() -> None:
    assert [name for name, (signatures, _) in kernels().items() if signatures] == []


def test_every_kernel_is_cached() -> None:
    assert [name for name, (_, cached) in kernels().items() if not cached] == []

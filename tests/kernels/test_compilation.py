"""Importing compiles nothing, and what is compiled later is kept on disk."""

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import murank_kernels

# What is read-only is of another type to Numba; kernels are not compiled for it anew.
READ_ONLY = """
import numpy as np
from murank_kernels.evaluation import match_places as cpu_places
from murank_kernels.tiles import selection
from murank_kernels.checks import validate
from murank_kernels import evaluate_rank, simple, smallest_k

rows = np.random.default_rng(0).random((9, 4), np.float32)
distances, pids = np.ascontiguousarray(simple(rows, 3)), np.arange(9) % 3
kernels = validate._copy_rows, cpu_places._places, selection.select_rows

def answers():
    ranked = evaluate_rank(distances, pids[:3], pids[3:], np.zeros(3, int), np.ones(6, int))
    found = simple(rows, 3), smallest_k(distances, 2)[1], ranked.all_AP
    return [array.tobytes() for array in found]

def compiled():
    return [len(kernel.signatures) for kernel in kernels]

wanted, before = answers(), compiled()
rows.flags.writeable = distances.flags.writeable = False
assert answers() == wanted
assert compiled() == before == [1, 1, 1], (compiled(), before)
assert not rows.flags.writeable and not distances.flags.writeable
"""
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
    found: dict[str, tuple[int, bool]] = json.loads(printed_by(LIST_KERNELS))
    assert found
    return found


def printed_by(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(murank_kernels.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_compiles_nothing() -> None:
    assert [name for name, (signatures, _) in kernels().items() if signatures] == []


def test_every_kernel_is_cached() -> None:
    assert [name for name, (_, cached) in kernels().items() if not cached] == []


def test_read_only_arrays_compile_nothing_more() -> None:
    printed_by(READ_ONLY)

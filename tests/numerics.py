"""Numeric tests as other machines would run them, and with other numbers.

    python tests/numerics.py             each setting alone, then all at once (make test-numerics)
    python tests/numerics.py MKL THREADS  those whose variables are named so
    python tests/numerics.py --short     the cheap files under all at once (make test)

Float32 sums come out in another order with each; a bound that one of them breaks was fitted to a
machine. One line a setting. What a CPU lacks cannot be switched on: AVX-512 is left to its owners.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHEAP = (
    "tests/kernels/test_reference.py",
    "tests/kernels/test_evaluation.py",
    "tests/kernels/test_online.py::test_against_the_dense_oracle",  # of others sums are exact
    "tests/runtime/test_calibration_temperature.py",
    "tests/export/test_geometry.py",
    "tests/export/test_train_packing.py",
)
# And these. What NumPy and Numba compute:
ARRAYS = (
    "tests/kernels",
    "tests/runtime/test_calibration_scoring.py",
    "tests/runtime/test_calibration_measure.py",
    "tests/runtime/test_calibration_temperature.py",
)
# What torch computes; they export layers or engines.
MODELS = (
    "tests/export/test_smoothing.py",
    "tests/export/test_geometry.py",
    "tests/export/test_train_packing.py",
    "tests/export/test_train.py",
    "tests/export/test_int8.py",
    "tests/export/test_qdq.py",
    "tests/export/test_qdq_engine.py",
    "tests/export/test_rounding.py",
    "tests/export/test_graphs.py",
    "tests/export/test_emulated.py",
    "tests/export/test_engine.py",
    "tests/export/test_export_job.py",
    "tests/export/test_scorer_parity.py",
)
# And these, with GPUS=all alone: see tests/longer.py.
LONGER = (
    "tests/export/test_bf16.py",
    "tests/export/test_miniature.py",
    "tests/export/test_one_trace.py",
    "tests/export/test_plan_engine.py",
    "tests/export/test_trt_build.py",
)
# Graphs are traced anew: those of pytest's cache were traced with other variables.
OPTIONS = ("-q", "-rf", "--no-header", "--tb=short", "-p", "no:cacheprovider")
# A variable of torch's libraries changes nothing in a file that never loads them.
OF_TORCH: tuple[Mapping[str, str], ...] = (
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"MKL_CBWR": "COMPATIBLE"},
    {"DNNL_MAX_CPU_ISA": "SSE41"},
)
OF_ALL: tuple[Mapping[str, str], ...] = (
    {"OPENBLAS_CORETYPE": "Nehalem"},
    {"OPENBLAS_CORETYPE": "Haswell"},
    {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
    {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"},
)
OTHER_SEEDS: tuple[Mapping[str, str], ...] = ({"SEED_SHIFT": "1"}, {"SEED_SHIFT": "2"})
TOGETHER = {
    "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "DNNL_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
}  # fmt: skip


def matrix(*, short: bool) -> Iterator[tuple[Mapping[str, str], Sequence[str]]]:
    """Yield what each run adds to the environment, and its files."""
    if short:
        yield TOGETHER, CHEAP
        return
    # And nothing else: see kernels/cuda/test_compile.py.
    yield {"GPUS": "all"}, (*ARRAYS, *MODELS, *LONGER)
    yield from ((change, MODELS) for change in OF_TORCH)
    yield from ((change, (*ARRAYS, *MODELS)) for change in (*OF_ALL, *OTHER_SEEDS, TOGETHER))


def run(change: Mapping[str, str], files: Sequence[str]) -> bool:
    """Run the files in a process of its own; print one line, and what failed."""
    named = {name for one in (*OF_TORCH, *OF_ALL, *OTHER_SEEDS, TOGETHER) for name in one}
    named.add("PYTHONDONTWRITEBYTECODE")  # see conftest.py
    plain = {name: value for name, value in os.environ.items() if name not in named}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, *files],
        cwd=ROOT, env=plain | dict(change), capture_output=True, text=True, check=False,
    )  # fmt: skip
    what = " ".join(f"{name}={value}" for name, value in change.items())
    said = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
    print(f"{what}: {said} [{time.monotonic() - start:.0f} s]", flush=True)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run all settings, whatever fails; 1 if anything did."""
    short = sys.argv[1:] == ["--short"]
    names = [] if short else sys.argv[1:]
    passed = [
        run(change, files)
        for change, files in matrix(short=short)
        if not names or all(any(name in variable for name in names) for variable in change)
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())

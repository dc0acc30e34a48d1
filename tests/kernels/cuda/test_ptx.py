"""Every kernel compiles to PTX for the GPUs that matter: no GPU is needed for that."""

import importlib.util
import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

import murank_kernels

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda, which compiles kernels, is not installed",
)
IN_FLOAT64 = {"row_squares", "fused_squares", "replace"}  # where sums or quotients need the digits


@lru_cache
def compiled(capability: str) -> dict[str, str]:
    """Kernel -> PTX, from a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(murank_kernels.__file__).parents[1])}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "compile_ptx.py"), capability],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("capability", ["7.5", "8.7", "9.0"])
def test_every_kernel(capability: str) -> None:
    kernels = compiled(capability)
    assert {"scan", "turn", "expand", "add_rows", "share", "places"} <= set(kernels)
    assert len(kernels) == 20
    for name, ptx in kernels.items():
        assert f".target sm_{capability.replace('.', '')}" in ptx, name
        assert ".entry" in ptx, name


def test_no_kernel_slips_into_float64() -> None:
    """Which consumer and Jetson GPUs do at 1/32 to 1/64 of the speed."""
    assert {name for name, ptx in compiled("8.7").items() if ".f64" in ptx} == IN_FLOAT64

"""Every kernel compiles to machine code for the GPUs that matter: no GPU is needed for that.

For a Jetson Orin; with GPUS=all (8 s more for each) for all of them, as `make test-numerics` does.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

import murank_kernels

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda, which compiles kernels, is not installed",
)
ALL = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "11.0", "12.0")
CAPABILITIES = ALL if os.environ.get("GPUS") == "all" else ("8.7",)
IN_FLOAT64 = {"row_squares", "fused_squares", "replace", "tell"}  # where the digits are needed
MOST_REGISTERS = 128  # a thread: a block of 256 is at home everywhere, with as many beside it
KINDS = {"i8": ["u64"], "f4": ["f32"], "f8": ["f64"], "b1": ["u8"]}


@lru_cache
def compiled() -> dict[str, dict[str, Any]]:
    """Kernel -> capability -> what came out, from a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(murank_kernels.__file__).parents[1])}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "compile_kernels.py"), *CAPABILITIES],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def of(capability: str) -> dict[str, Any]:
    """Kernel -> what came out for one kind of GPU."""
    kernels = compiled()
    assert {"scan", "turn", "expand", "add_rows", "share", "places"} <= set(kernels)
    assert len(kernels) == 23
    if capability not in kernels["scan"]:
        pytest.skip(f"the installed compiler does not know compute capability {capability}")
    return {name: made[capability] for name, made in kernels.items()}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_ptx(capability: str) -> None:
    for name, made in of(capability).items():
        assert re.search(rf"\.target sm_{capability.replace('.', '')}\b", made["ptx"]), name
        assert f".entry murank_{name}(" in made["ptx"], name


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_machine_code(capability: str) -> None:
    for name, made in of(capability).items():
        if "cubin" not in made:
            pytest.skip("nvJitLink, which makes machine code of PTX, is not installed")
        used = made["used"]
        assert made["cubin"] > 1000, name
        assert used["spilled"] == used["stack"] == 0, (name, used)
        assert used["shared"] <= 1024, (name, used)  # what is asked for at launch is not in here
        assert 0 < used["registers"] <= MOST_REGISTERS, (name, used)


def test_a_kernel_takes_the_words_that_a_launch_hands_over() -> None:
    """Numba's rule for arrays is not a promise; which word is which, `probe` asks a GPU."""
    from murank_kernels.cuda import probe, rank_kernels
    from murank_kernels.cuda.kernel import KERNELS
    from murank_kernels.methods import on_device

    assert on_device
    assert probe
    assert rank_kernels
    for name, made in of("8.7").items():
        parameters = KERNELS[name].parameters
        wanted = [
            word
            for parameter in parameters
            for word in KINDS.get(parameter.kind, ["u64"] * (5 + 2 * parameter.dimensions))
        ]
        (declared,) = re.findall(rf"\.entry murank_{name}\(([^)]*)\)", made["ptx"])
        assert re.findall(r"\.param \.(\w+)", declared) == wanted, name


def test_no_kernel_slips_into_float64() -> None:
    """Which consumer and Jetson GPUs do at 1/32 to 1/64 of the speed."""
    assert {name for name, made in of("8.7").items() if ".f64" in made["ptx"]} == IN_FLOAT64

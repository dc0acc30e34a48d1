"""Compile every CUDA kernel to PTX for one compute capability, on a machine without a GPU.

A script: `python compile_ptx.py 8.7` prints {kernel: PTX} as JSON.
"""

import importlib
import json
import pkgutil
import sys
from types import SimpleNamespace
from typing import Any

import murank_kernels.cuda
from murank_kernels.cuda._kernel import KERNELS, cuda


def compile_all(capability: tuple[int, int]) -> dict[str, str]:
    for info in pkgutil.iter_modules(murank_kernels.cuda.__path__, "murank_kernels.cuda."):
        importlib.import_module(info.name)
    # Functions that kernels call are compiled for the GPU of this machine, which has none.
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    normalize_signature: Any = importlib.import_module("numba.core.sigutils").normalize_signature
    done = {}
    for name, kernel in KERNELS.items():
        arguments, _ = normalize_signature(kernel.signature)
        done[name], _ = cuda.compile(
            kernel.function, arguments, cc=capability, device=False, output="ptx", abi="numba"
        )
    return done


if __name__ == "__main__":
    major, minor = map(int, sys.argv[1].split("."))
    print(json.dumps(compile_all((major, minor))))

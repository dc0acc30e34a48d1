"""Compile every CUDA kernel to machine code as `cubins` does, on a machine without a GPU.

A script: `python compile_kernels.py 8.7 9.0` prints {kernel: {capability: what came out}} as JSON;
with `--table` first, the registers of a thread instead. Where there is no nvJitLink, it stops at
PTX.
"""

import importlib
import json
import pkgutil
import re
import sys
from types import SimpleNamespace
from typing import Any

import murank_kernels.cuda
from murank_kernels.cuda import cubins
from murank_kernels.cuda.kernel import KERNELS

_USED = {
    "registers": r"Used (\d+) registers",
    "stack": r"(\d+) bytes stack frame",  # in local memory, which is far away
    "spilled": r"(\d+) bytes spill stores",
    "shared": r"(\d+) bytes smem",
}


def has_linker() -> bool:
    try:
        importlib.import_module("cuda.bindings.nvjitlink").version()
    except Exception:  # noqa: BLE001  # each release says it in a class of its own
        return False
    return True


def import_kernels() -> None:
    for info in pkgutil.iter_modules(murank_kernels.cuda.__path__, "murank_kernels.cuda."):
        importlib.import_module(info.name)


def be_a(capability: tuple[int, int]) -> None:
    """Functions that kernels call are compiled for the GPU of this machine, which has none."""
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)


def known(capability: tuple[int, int]) -> bool:
    """Whether the compiler that is installed knows such a GPU."""
    nvrtc: Any = importlib.import_module("numba.cuda.cudadrv.nvrtc")
    return capability in nvrtc.get_supported_ccs()


def used(log: str) -> dict[str, int]:
    """What ptxas says that a kernel uses; bytes, or registers of a thread."""
    found = {name: re.findall(pattern, log) for name, pattern in _USED.items()}
    return {name: int(values[0]) if values else 0 for name, values in found.items()}


def compile_all(capabilities: list[tuple[int, int]]) -> dict[str, dict[str, Any]]:
    import_kernels()
    links = has_linker()
    done: dict[str, dict[str, Any]] = {name: {} for name in KERNELS}
    for capability in filter(known, capabilities):
        be_a(capability)
        for name, kernel in KERNELS.items():
            made: dict[str, Any] = {"ptx": cubins.as_ptx(kernel, capability)}
            if links:
                arch = cubins.architecture(capability)
                code, log = cubins.linked(made["ptx"], arch, ptxas_options="-v")
                made |= {"cubin": len(code), "used": used(log), "log": log}
            done[name]["{}.{}".format(*capability)] = made
    return done


def parsed(text: str) -> tuple[int, int]:
    major, minor = map(int, text.split("."))
    return major, minor


def main(arguments: list[str]) -> None:
    as_table = arguments[:1] == ["--table"]
    asked = arguments[as_table:]
    done = compile_all([parsed(text) for text in asked])
    if not as_table:
        print(json.dumps(done))
        return
    for name, made in done.items():
        cells = [made[text]["used"] if text in made else None for text in asked]
        print(f"{name:16}", *(f"{c['registers'] if c else '-':>5}" for c in cells))


if __name__ == "__main__":
    main(sys.argv[1:])

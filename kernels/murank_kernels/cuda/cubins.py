"""Kernels as machine code: compiled by Numba, linked by NVIDIA's linker, kept on disk.

Numba's own cache asks only whether the kernel's own file has changed, but a kernel holds code of
other files too. Here a stored kernel counts only if every source of this package is as it was.
"""

import hashlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from murank_kernels.cuda.kernel import Kernel, cuda
from murank_kernels.cuda.parameters import word_bits

SOURCES = Path(__file__).parents[1]
TOOLS = (
    "numba", "numba-cuda", "llvmlite", "cuda-core", "cuda-bindings", "nvidia-nvvm",
    "nvidia-cuda-nvrtc", "nvidia-nvjitlink", "nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12",
)  # fmt: skip
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\(([^)]*)\)")  # name, parameters
_WIDTH = re.compile(r"\.param\s+\.[a-z]+(\d+)")  # of a parameter, in bits
_DIGEST = 32  # bytes of SHA-256


def entry(kernel: Kernel) -> str:
    """Name of the kernel in its machine code."""
    return f"murank_{kernel.name}"


def cubin(kernel: Kernel, capability: tuple[int, int]) -> bytes:
    """Machine code for GPUs of a compute capability, from disk if it was compiled before."""
    arch = architecture(capability)
    name = f"{kernel.name}.{arch}.{sys.implementation.cache_tag}.cubin"
    key = _key(kernel, arch)
    stored = _read(name, key)
    if stored is None:
        stored, _ = linked(as_ptx(kernel, capability), arch)
        _write(name, key, stored)
    return stored


def architecture(capability: tuple[int, int]) -> str:
    """(8, 7) is sm_87."""
    return "sm_{}{}".format(*capability)


def as_ptx(kernel: Kernel, capability: tuple[int, int]) -> str:
    """Compile to PTX; the functions that the kernel calls are inside.

    Numba compiles these for the GPU of the current context, so there must be one. Raises
    RuntimeError if the kernel takes other words than it will be handed: CuPy does not count them.
    """
    ptx, _ = cuda.compile(
        kernel.function, kernel.signature, cc=capability, device=False, output="ptx", abi="numba",
        debug=False,
    )  # fmt: skip
    ((mangled, taken),) = _ENTRY.findall(ptx)
    if [int(width) for width in _WIDTH.findall(taken)] != word_bits(kernel.parameters):
        raise RuntimeError(
            f"{kernel.name} came out with other parameters than numba-cuda 0.30 gives it"
        )
    text: str = ptx.replace(mangled, entry(kernel))
    return text


def linked(ptx: str, arch: str, **options: Any) -> tuple[bytes, str]:
    """Machine code of PTX, and what the linker says about it."""
    core = importlib.import_module("cuda.core")
    settings = core.LinkerOptions(arch=arch, **options)
    linker = core.Linker(core.ObjectCode.from_ptx(ptx.encode()), options=settings)
    code = bytes(linker.link("cubin").code)
    return code, linker.get_info_log()


@lru_cache(maxsize=1)
def sources_digest(folder: Path) -> bytes:
    """SHA-256 of all sources of this package."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.digest()


@lru_cache(maxsize=1)
def _tools() -> str:
    found = [sys.version]
    for name in TOOLS:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return "\n".join(found)


def _key(kernel: Kernel, arch: str) -> bytes:
    told = "\n".join((kernel.name, kernel.signature, arch, _tools()))
    return hashlib.sha256(told.encode() + sources_digest(SOURCES)).digest()


def _folders() -> Iterator[Path]:
    """Where kernels are kept, if they can be: as Numba does it on CPUs."""
    if not Path(__file__).is_file():
        return  # in an archive, where nothing tells whether sources have changed
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"]) / "murank_kernels_cuda"
        return
    yield Path(__file__).parent / "__pycache__"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    yield Path(cache) / "murank_kernels_cuda"


def _read(name: str, key: bytes) -> bytes | None:
    """Return what is stored under this key, whole."""
    for folder in _folders():
        with suppress(OSError):
            stored = (folder / name).read_bytes()
            code = stored[2 * _DIGEST :]
            if stored[: 2 * _DIGEST] == key + hashlib.sha256(code).digest():
                return code
    return None


def _write(name: str, key: bytes, code: bytes) -> None:
    """Store in the first folder that takes it; a kernel that is not kept is compiled again."""
    for folder in _folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / name, key + hashlib.sha256(code).digest() + code)
            return


def _replace(file: Path, content: bytes) -> None:
    """Write a file aside, and put it into place; nothing stays aside if that fails."""
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as aside:
        try:
            aside.write(content)
            aside.flush()
            Path(aside.name).replace(file)
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise

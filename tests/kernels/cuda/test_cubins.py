"""Kernels kept on disk: found again, and never when anything they were made of has changed."""

import importlib
import resource
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import murank_kernels
from murank_kernels.cuda import cubins
from murank_kernels.cuda.kernel import Kernel

KERNEL = Kernel(lambda: None, "void(f4[::1])")
ORIN = (8, 7)


class Compiler:
    """Counts; each kernel it makes is another."""

    made = 0

    def as_ptx(self, kernel: Kernel, capability: tuple[int, int]) -> str:
        return f"{kernel.signature} {capability}"

    def linked(self, ptx: str, arch: str) -> tuple[bytes, str]:
        self.made += 1
        return f"{ptx} {arch} {self.made}".encode(), ""


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(cubins, "as_ptx", made.as_ptx)
    monkeypatch.setattr(cubins, "linked", made.linked)
    return made


@pytest.fixture
def cache(compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    del compiler
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path / "murank_kernels_cuda"


def test_a_kernel_is_compiled_once(cache: Path, compiler: Compiler) -> None:
    first = cubins.cubin(KERNEL, ORIN)
    assert first == b"void(f4[::1]) (8, 7) sm_87 1"
    assert cubins.cubin(KERNEL, ORIN) == first
    assert compiler.made == 1
    (stored,) = cache.iterdir()
    assert stored.name.startswith("<lambda>.sm_87.")


def test_each_architecture_and_signature_has_its_own(cache: Path, compiler: Compiler) -> None:
    cubins.cubin(KERNEL, ORIN)
    assert cubins.cubin(KERNEL, (12, 0)) == b"void(f4[::1]) (12, 0) sm_120 2"
    cubins.cubin(Kernel(KERNEL.function, "void(i4[::1])"), ORIN)
    assert compiler.made == 3
    assert len(list(cache.iterdir())) == 2  # what is out of date is written over


@pytest.mark.parametrize("changed", ["tiles/distances.py", "cuda/tile_kernels.py", "new.py"])
def test_any_source_counts(
    changed: str, cache: Path, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that a kernel's own file only imports, of the same size and age as before."""
    sources = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(murank_kernels.__file__).parent, sources, ignore=ignored)
    monkeypatch.setattr(cubins, "SOURCES", sources)
    cubins.cubin(KERNEL, ORIN)
    path = sources / changed
    before = path.read_bytes() if path.exists() else b""
    path.write_bytes(before.replace(b"0", b"1", 1) or b"x = 1")
    assert path.read_bytes() != before
    cubins.sources_digest.cache_clear()  # as in the next process
    cubins.cubin(KERNEL, ORIN)
    assert compiler.made == 2
    path.write_bytes(before)
    cubins.sources_digest.cache_clear()
    assert cache.is_dir()


def test_other_tools_compile_again(
    cache: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.parent.is_dir()
    cubins.cubin(KERNEL, ORIN)
    monkeypatch.setattr(cubins, "_tools", lambda: "numba-cuda 0.99")
    cubins.cubin(KERNEL, ORIN)
    assert compiler.made == 2


def test_the_tools_are_named() -> None:
    assert f"numba {metadata.version('numba')}" in cubins._tools()


@pytest.mark.parametrize("broken", [b"", b"x" * 200, None])
def test_a_broken_file_is_replaced(broken: bytes | None, cache: Path, compiler: Compiler) -> None:
    first = cubins.cubin(KERNEL, ORIN)
    (stored,) = cache.iterdir()
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] if broken is None else broken)
    assert cubins.cubin(KERNEL, ORIN) != first
    assert compiler.made == 2
    assert len(stored.read_bytes()) == len(whole)


def test_where_nothing_can_be_written(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    for _ in range(2):
        cubins.cubin(KERNEL, ORIN)
    assert compiler.made == 2


def test_nothing_stays_of_what_a_full_disk_cut_off(cache: Path, compiler: Compiler) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
    try:
        cubins.cubin(KERNEL, ORIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(cache.iterdir()) == []
    cubins.cubin(KERNEL, ORIN)
    assert (compiler.made, len(list(cache.iterdir()))) == (2, 1)


def test_beside_the_package_or_at_home(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(cubins, "__file__", str(package / "cubins.py"))
    cubins.cubin(KERNEL, ORIN)
    assert list(tmp_path.iterdir()) == [package]  # in an archive nothing is kept
    (package / "cubins.py").touch()
    cubins.cubin(KERNEL, ORIN)
    assert len(list((package / "__pycache__").iterdir())) == 1
    shutil.rmtree(package / "__pycache__")
    (package / "__pycache__").touch()  # nobody can write there
    for _ in range(2):
        cubins.cubin(KERNEL, ORIN)
    assert len(list((tmp_path / "home" / "murank_kernels_cuda").iterdir())) == 1
    assert compiler.made == 3


def test_words_of_arguments_need_no_compiler() -> None:
    from murank_kernels.cuda.parameters import Parameter, parameters_of

    assert parameters_of("void(f4[:,::1], b1, i8[::1])") == (
        Parameter("f4[:,::1]", np.dtype(np.float32), 2),
        Parameter("b1", np.dtype(bool), 0),
        Parameter("i8[::1]", np.dtype(np.int64), 1),
    )


@pytest.mark.parametrize(
    ("taken", "fits"),
    [
        (".param .u64 a, .param .u64 b, .param .u64 c", False),
        (", ".join(f".param .u64 p{i}" for i in range(7)) + ",\n.param .u8 b, .param .f32 c", True),
        (", ".join(f".param .b64 p{i}" for i in range(7)) + ", .param .b8 b, .param .b32 c", True),
        (
            ", ".join(f".param .u64 p{i}" for i in range(7)) + ", .param .u32 b, .param .f32 c",
            False,
        ),
        (".param .align 8 .b8 a[56], .param .u8 b, .param .f32 c", False),
    ],
)
def test_a_kernel_must_take_what_it_will_be_handed(
    taken: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch with too few words would read past their end."""

    def compiled(*_: Any, **options: Any) -> tuple[str, None]:
        assert options["cc"] == ORIN
        return f".visible .entry _Z6kernel({taken}) {{ ret; }}", None

    monkeypatch.setattr(cubins, "cuda", SimpleNamespace(compile=compiled))
    kernel = Kernel(KERNEL.function, "void(f4[::1], b1, f4)")
    if fits:
        assert ".entry murank_<lambda>(.param" in cubins.as_ptx(kernel, ORIN)
    else:
        with pytest.raises(RuntimeError, match="came out with other parameters"):
            cubins.as_ptx(kernel, ORIN)


def test_the_linker_is_told_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of cuda.core, which cannot link where nvJitLink is missing."""
    told: list[Any] = []

    class Core:
        class ObjectCode:
            from_ptx = staticmethod(lambda ptx: ("ptx", ptx))

        LinkerOptions = staticmethod(lambda **options: options)

        class Linker:
            def __init__(self, *codes: Any, options: Any) -> None:
                told.extend([codes, options])

            def link(self, kind: str) -> Any:
                assert kind == "cubin"
                return type("Code", (), {"code": bytearray(b"machine")})

            def get_info_log(self) -> str:
                return "log"

    monkeypatch.setattr(importlib, "import_module", lambda _: Core)
    assert cubins.linked("text", "sm_87") == (b"machine", "log")
    assert told == [(("ptx", b"text"),), {"arch": "sm_87"}]

"""Libraries that are missing, broken, or no libraries at all: each is told apart."""

import sys
from pathlib import Path

import pytest

from murank import MachineError
from murank.backends.trt.api import installed
from murank.cli import main
from murank.machine.library import LibraryError, library

BROKEN = {
    "import": "raise ImportError('libcudart.so.12: cannot open shared object file')",
    "another module": "import made_up_dependency",
    "linker": "raise OSError('libfoo.so: undefined symbol: bar')",
    "numpy": "raise AttributeError('module numpy has no attribute bool8')",
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_what_is_not_installed() -> None:
    for name in ("made_up_library", "made_up_library.part"):
        with pytest.raises(
            LibraryError, match=r"made_up_library.* is not installed: buy it"
        ) as found:
            library(name, install="buy it")
        assert found.value.missing
    assert found.value.exit_code == 3


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_tells_its_cause(made: Path, kind: str) -> None:
    (made / "broken_library.py").write_text(BROKEN[kind])
    with pytest.raises(LibraryError) as found:
        library("broken_library", install="buy it")
    assert not found.value.missing
    cause = str(found.value.__cause__)
    assert cause in str(found.value)
    assert "not installed" not in str(found.value)


def test_no_memory(made: Path) -> None:
    (made / "large_library.py").write_text("raise MemoryError")
    with pytest.raises(LibraryError, match="no memory") as found:
        library("large_library", install="buy it")
    assert not found.value.missing


def test_a_folder_of_that_name(made: Path) -> None:
    (made / "folder_library").mkdir()
    with pytest.raises(LibraryError, match="folder") as found:
        library("folder_library", install="buy it")
    assert found.value.missing


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_onnxruntime(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    (made / "onnxruntime.py").write_text(BROKEN[kind])
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    engine = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
    assert main(["inspect", "--verify", str(engine)]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "onnxruntime is installed, but" in said


def test_a_broken_tensorrt_gives_way_to_another(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (made / f"{name}.py").write_text("raise OSError('libnvinfer.so.10: cannot open')")
    with pytest.raises(MachineError, match="libnvinfer"):
        installed()
    (made / "tensorrt_rtx.py").write_text("__version__ = '1.7.0'")
    assert installed()[0].is_rtx


def test_a_verb_whose_library_is_broken(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a verb imports without asking, here by a made-up verb."""
    (made / "made_up_verb.py").write_text(
        "from argparse import ArgumentParser as parser\ndef run(args): import made_up_library"
    )
    monkeypatch.setattr("murank.cli.ELSEWHERE", {"doctor": "made_up_verb"})
    assert main(["doctor"]) == 3
    assert "made_up_library" in capsys.readouterr().err

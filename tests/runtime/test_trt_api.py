"""Which TensorRT is taken, told by modules that are made up here."""

import sys
from types import ModuleType

import pytest
from trt_fakes import FakeTensorRT

from murank import MachineError
from murank.backends.trt.api import Backend, first_error, installed, make_logger


@pytest.fixture
def none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("none")
@pytest.mark.parametrize(
    ("backend", "names"),
    [
        ("auto", "no module tensorrt nor tensorrt_rtx"),
        ("tensorrt", r"no module tensorrt\)"),
        ("rtx", r"no module tensorrt_rtx\)"),
    ],
)
def test_without_any(backend: Backend, names: str) -> None:
    with pytest.raises(MachineError, match=rf"{names}.*JetPack 6.*pip install tensorrt-rtx"):
        installed(backend)


@pytest.mark.usefixtures("none")
def test_the_full_one_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", FakeTensorRT("tensorrt_rtx", "1.7.1.116"))
    assert [one.title for one in installed()] == ["TensorRT-RTX 1.7.1.116"]
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(version="10.16.1.post1"))
    assert [one.library for one in installed()] == ["tensorrt", "tensorrt_rtx"]
    (rtx,) = installed("rtx")
    assert rtx.is_rtx
    assert not installed("tensorrt")[0].is_rtx


@pytest.mark.usefixtures("none")
@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "dev"])
def test_too_old(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(version=version))
    with pytest.raises(MachineError, match=rf"TensorRT {version} is too old, 10\.1 is needed"):
        installed()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", FakeTensorRT("tensorrt_rtx", "1.7.0"))
    assert installed()[0].is_rtx


@pytest.mark.usefixtures("none")
@pytest.mark.parametrize("version", ["10.1", "10.3.0", "11.0.0"])
def test_new_enough(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(version=version))
    assert installed()[0].version == version


@pytest.mark.usefixtures("none")
def test_a_folder_of_that_name_is_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(MachineError, match="not installed"):
        installed()


def test_the_logger_keeps_errors_and_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT())
    (api, *_) = installed("tensorrt")
    logger, severity = make_logger(api), api.module.ILogger.Severity
    assert first_error(logger) == "it gave no reason"
    logger.log(severity.WARNING, "slow")
    logger.log(severity.ERROR, "first\n  line " + 400 * "x")
    logger.log(severity.INTERNAL_ERROR, "second")
    assert first_error(logger).startswith("first line x")
    assert len(first_error(logger)) <= 300
    assert capfd.readouterr() == ("", "")

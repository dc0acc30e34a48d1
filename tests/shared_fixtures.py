"""Fixtures of more than one folder of tests: a conftest imports those it offers."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from refusal import Refuse, refusing
from trt_fakes import FakeGpu, FakeTensorRT

from murank.backends.trt import cuda as _cuda

if TYPE_CHECKING:
    from image_job import ImageJob


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "ImageJob":
    """Folders of crops and an engine for `murank score`."""
    from image_job import ImageJob

    return ImageJob(tmp_path, monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    """The only GPU, made up; keys of this machine go into the test's folder."""
    fake = FakeGpu()
    monkeypatch.setattr(_cuda, "open_gpu", lambda _index=0: fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fake


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """The only TensorRT, made up."""
    pytest.importorskip("onnxruntime")
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    return fake


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """What all refusals of a verb have in common."""
    return refusing(tmp_path, capsys)

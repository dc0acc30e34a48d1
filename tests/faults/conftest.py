"""What the tests of the runtime have, here too."""

import sys
from pathlib import Path

import pytest
from image_job import ImageJob
from trt_fakes import FakeGpu, FakeTensorRT

from murank.trt import _cuda


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageJob:
    return ImageJob(tmp_path, monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    fake = FakeGpu()
    monkeypatch.setattr(_cuda, "open_gpu", lambda _index=0: fake)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return fake


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    pytest.importorskip("onnxruntime")
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    return fake

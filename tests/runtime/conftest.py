import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from trt_fakes import FakeGpu, FakeTensorRT

from murank import save_features
from murank.synthetic import make_features
from murank.trt import _cuda

if TYPE_CHECKING:
    from image_job import ImageJob


@pytest.fixture
def arrays() -> dict[str, NDArray[Any]]:
    """Two queries and three gallery images, as the customary file holds them."""
    return {
        "features": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32),
        "paths": np.array(["query/a", "query/b", "gallery/a", "gallery/b", "gallery/c"]),
        "pids": np.array([1, 2, 1, 2, 3]),
        "camids": np.array([1, 1, 2, 2, 2]),
    }


@pytest.fixture
def feature_file(tmp_path: Path) -> Path:
    file = tmp_path / "features.npz"
    features = make_features(
        num_ids=12, num_cameras=3, images_per_camera=3, num_distractors=20, dim=24
    )
    save_features(file, features)
    return file


@pytest.fixture
def mu_file(tmp_path: Path) -> Path:
    """Mu-distances of the first five gallery images for every query of `feature_file`."""
    from murank import load_features

    num_query = load_features(tmp_path / "features.npz").num_query
    file = tmp_path / "mu.npz"
    probs = np.random.default_rng(1).random((num_query, 5)).astype(np.float32)
    np.savez(file, probs=probs, gallery_indices=np.tile(np.arange(5), (num_query, 1)))
    return file


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "ImageJob":
    """Folders of crops and an engine for `murank rerank`."""
    from image_job import ImageJob

    return ImageJob(tmp_path, monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeGpu:
    """The only GPU, made up; keys of this machine go into the test's folder."""
    fake = FakeGpu()
    monkeypatch.setattr(_cuda, "open_gpu", lambda _index=0: fake)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return fake


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """The only TensorRT, made up."""
    pytest.importorskip("onnxruntime")
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    return fake

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_features import make_features
from numpy.typing import NDArray
from shared_fixtures import gpu as gpu
from shared_fixtures import job as job
from shared_fixtures import refuse as refuse
from shared_fixtures import trt as trt

from murank import save_features


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
def served(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A client of a service on an engine made by hand, and the service's state."""
    from service_parts import service

    with service(tmp_path) as both:
        yield both


@pytest.fixture
def mu_file(tmp_path: Path) -> Path:
    """Mu-distances of the first five gallery images for every query of `feature_file`."""
    from murank import load_features

    num_query = load_features(tmp_path / "features.npz").num_query
    file = tmp_path / "mu.npz"
    probs = np.random.default_rng(1).random((num_query, 5)).astype(np.float32)
    np.savez(file, probs=probs, gallery_indices=np.tile(np.arange(5), (num_query, 1)))
    return file

import numpy as np
import pytest
from made_features import make_features

from murank import FeatureSet, InputError
from murank.rerank.verdicts import Verdicts


def mean_ap(features: FeatureSet, method: str) -> float:
    from murank.rerank.methods import distance_blocks
    from murank_kernels import evaluate_rank

    assert features.labels is not None
    blocks = distance_blocks(method, features)
    return evaluate_rank(blocks, *features.labels.as_arguments()).mAP


def test_the_seed_decides() -> None:
    one, same, other = (make_features(num_ids=5, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.features, same.features)
    assert one.features.shape != other.features.shape or (one.features != other.features).any()


def test_layout() -> None:
    found = make_features(num_ids=9, num_cameras=4, images_per_camera=3, num_distractors=7, dim=16)
    assert found.features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, rtol=1e-5)
    assert all("query" in path for path in found.query.paths)
    assert not any("query" in path for path in found.gallery.paths)
    assert len(set(found.paths)) == len(found.paths)
    assert found.gallery.pids is not None
    assert (found.gallery.pids == 0).sum() == 7
    assert found.labels is not None
    num_matches = Verdicts(found.labels, {}).num_matches
    assert (num_matches > 0).all()
    assert (num_matches % 2 == 0).all()  # two gallery images a person and camera


def test_re_ranking_has_something_to_gain() -> None:
    features = make_features()
    plain = mean_ap(features, "none")
    assert 0.45 < plain < 0.65
    assert mean_ap(features, "k-reciprocal") > plain + 0.05
    assert mean_ap(features, "ca-jaccard") > plain + 0.1


def test_cameras_and_noise_make_it_harder() -> None:
    easy = mean_ap(make_features(num_ids=60), "none")
    assert mean_ap(make_features(num_ids=60, camera_shift=0.8), "none") < easy - 0.1
    assert mean_ap(make_features(num_ids=60, noise=2.0), "none") < easy - 0.1


@pytest.mark.parametrize("name", ["num_ids", "num_cameras", "images_per_camera", "dim"])
def test_sizes_that_are_too_small(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least"):
        make_features(**{name: 0})


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_strengths_that_make_no_sense(value: float) -> None:
    with pytest.raises(InputError, match="noise"):
        make_features(noise=value)

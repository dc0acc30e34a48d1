"""The second stage: the candidates whose mu is asked for, of queries and of gallery images."""

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.rerank.features import FeatureSet
from murank.rerank.methods import Progress, distance_blocks, kernel_errors


def nearest(
    features: FeatureSet, k: int, *, device: str = "cpu", progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the gallery images nearest by the encoder, nearest first.

    Distances [Q,K] of the unit rows, in [0,2], and gallery indices [Q,K]. K is `k`, or the size of
    the gallery if that is smaller.
    """
    blocks = distance_blocks("none", features, device=device, progress=progress)
    with kernel_errors():
        distances, indices = blocks.top_k(min(k, features.num_gallery))
    return distances, indices.astype(np.int64)


def nearest_others(
    features: FeatureSet, k: int, *, device: str = "cpu", progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the gallery images nearest to each gallery image, itself left out, nearest first.

    Distances [G,M] of the unit rows, in [0,2], and gallery indices [G,M]. M is `k`, or all the
    others if these are fewer.
    """
    check_others(features.num_gallery)
    gallery, num_gallery = features.gallery, features.num_gallery
    asked = FeatureSet(
        np.concatenate([gallery.features] * 2), np.concatenate([gallery.paths] * 2),
        None, None, num_gallery,
    )  # fmt: skip
    k = min(k, num_gallery - 1)
    distances, indices = nearest(asked, k + 1, device=device, progress=progress)
    kept = indices != np.arange(num_gallery)[:, None]
    kept[kept.all(axis=1), -1] = False  # so many equal images that it is not among the nearest
    return distances[kept].reshape(-1, k), indices[kept].reshape(-1, k)


def check_others(num_gallery: int) -> None:
    """Raise InputError if there is no pair of gallery images."""
    if num_gallery < 2:
        raise InputError(
            "mu between gallery images needs at least two of them; leave out --gallery-candidates"
        )

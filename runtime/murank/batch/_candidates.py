"""The second stage: the candidates whose mu is asked for."""

import numpy as np
from numpy.typing import NDArray

from murank._features import FeatureSet
from murank._methods import Progress, distance_blocks, kernel_errors


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

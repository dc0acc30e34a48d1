"""The gallery that a searcher keeps: checked, and made ready by the kernels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank._methods import Progress, kernel_errors
from murank.search._settings import SearchSettings

_NO_NEIGHBOURS = {"k1": 1, "k2": 1}  # for methods that look at none: lists as short as can be


def check_gallery(features: NDArray[Any], num_images: int, dim: int) -> None:
    """Raise InputError unless there is a feature of `dim` values for each image."""
    if features.ndim != 2 or features.shape[1] != dim:
        raise InputError(
            f"the gallery's features must have shape [G,{dim}], as this engine's encoder makes "
            f"them, got {list(features.shape)}; embed the gallery with this engine"
        )
    if len(features) != num_images:
        raise InputError(
            f"the gallery has {len(features)} features and {num_images} images; one each is needed"
        )


def check_parameters(settings: SearchSettings) -> None:
    """Raise InputError for parameters that the kernels refuse, before a gallery is embedded."""
    online_gallery(np.ones((1, 1), np.float32), settings, None)


def online_gallery(
    features: NDArray[Any], settings: SearchSettings, progress: Progress | None
) -> Any:
    """Return the kernels' `OnlineKReciprocal` of a gallery."""
    from murank_kernels import OnlineKReciprocal

    parameters = dict(settings.parameters)
    if settings.method != "k-reciprocal":
        parameters |= _NO_NEIGHBOURS
    with kernel_errors():
        return OnlineKReciprocal(features, progress=progress, **parameters)

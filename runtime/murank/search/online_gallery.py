"""The gallery that a searcher keeps: checked, and made ready by the kernels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.labels import Ids
from murank.images.arguments import as_array
from murank.rerank.alignment import Alignment, fit
from murank.rerank.methods import Progress, kernel_errors
from murank.search.search_settings import SearchSettings

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


def check_camids(camids: Ids | None, num_images: int) -> Ids | None:
    """Return the gallery's camids as an array; InputError unless there is one for each image."""
    if camids is None:
        return None
    given = as_array(camids, "the gallery's camids")
    if given.shape != (num_images,) or given.dtype.kind not in "iu":
        raise InputError(
            f"the gallery's camids must be {num_images} whole numbers, one an image, got "
            f"{given.dtype} {list(given.shape)}"
        )
    return given


def check_parameters(settings: SearchSettings) -> None:
    """Raise InputError for parameters that the kernels refuse, before a gallery is embedded."""
    online_gallery(np.ones((1, 1), np.float32), np.zeros(1, np.int64), settings, None)


class OnlineGallery:
    """Features that were aligned where that is possible, ready for queries."""

    def __init__(
        self,
        features: NDArray[Any],
        camids: Ids | None,
        asked: Alignment,
        settings: SearchSettings,
        progress: Progress | None,
    ) -> None:
        """Fit, align, and find the neighbours inside the gallery. Raises InputError."""
        self.alignment = fit(features, camids, asked, progress=progress)
        rows = self.alignment.apply(features, camids)
        self._online = online_gallery(rows, camids, settings, progress)
        self._knows_cameras = settings.method == "ca-jaccard"

    def query(self, feature: NDArray[np.float32], camid: int | None) -> Any:
        """Measure a query's feature [D] against the gallery; its camera may be unknown."""
        given = None if camid is None else np.array([camid])
        (row,) = self.alignment.apply(feature[None], given)
        return self._online.query(row, camid) if self._knows_cameras else self._online.query(row)


def online_gallery(
    features: NDArray[Any], camids: Ids | None, settings: SearchSettings, progress: Progress | None
) -> Any:
    """Return the kernels' gallery for the method."""
    from murank_kernels import OnlineCaJaccard, OnlineKReciprocal

    parameters = dict(settings.parameters)
    with kernel_errors():
        if settings.method == "ca-jaccard" and camids is not None:
            if settings.shortlist is not None:
                parameters["shortlist"] = settings.shortlist
            return OnlineCaJaccard(features, camids, **parameters)
        if settings.method != "k-reciprocal":
            parameters |= _NO_NEIGHBOURS
        return OnlineKReciprocal(features, progress=progress, **parameters)

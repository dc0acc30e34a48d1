"""A query image, decoded once for both models, and what the gallery is to its feature."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank.images import ImageSource, Preprocessing, ReadyImage, decoded, prepare, to_pixels
from murank.rerank.methods import kernel_errors
from murank.search.online_gallery import OnlineGallery

Pixels = NDArray[np.uint8]  # [3,H,W]


@dataclass(frozen=True)
class QueryPixels:
    """One image as the two models take it."""

    encoder: Pixels
    mllm: Pixels | None  # None where the MLLM is not asked


def query_pixels(
    source: ImageSource,
    encoder: Preprocessing,
    mllm: Preprocessing | None,
    *,
    name: str | None = None,
) -> QueryPixels:
    """Decode an image once and resize it for both. Raises InputError if it cannot be used."""
    if isinstance(source, ReadyImage):
        ready = prepare(source, encoder, name="the query").pixels
        return QueryPixels(ready, None if mllm is None else prepare(source, mllm).pixels)
    if name is None and isinstance(source, (str, os.PathLike)):
        name = str(Path(source))
    with decoded(source, bits=encoder.bits, limits=encoder.limits, name=name) as image:
        pixels = to_pixels(image, encoder, name=name)
        if mllm is None or mllm == encoder:
            return QueryPixels(pixels, None if mllm is None else pixels)
        return QueryPixels(pixels, to_pixels(image, mllm, name=name))


class Retrieved:
    """A query beside the gallery, and its candidates by the encoder, best first."""

    def __init__(
        self,
        gallery: OnlineGallery,
        feature: NDArray[np.float32],
        camid: int | None,
        num_candidates: int,
    ) -> None:
        with kernel_errors():
            self.query = gallery.query(feature, camid)
            self.candidates = np.empty(0, np.int32)  # [K] gallery indices
            if num_candidates:
                _, self.candidates = self.query.nearest(num_candidates)

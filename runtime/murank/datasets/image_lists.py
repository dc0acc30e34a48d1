"""Image lists with their labels: what every reader returns."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.labels import NO_CLOTHES


@dataclass(frozen=True)
class ImageList:
    """Images in a fixed order, with labels where they are known."""

    paths: tuple[Path, ...]  # [n]
    pids: NDArray[np.int64] | None  # [n] person ids
    camids: NDArray[np.int64] | None  # [n] camera ids
    notes: tuple[str, ...] = ()  # on how they were found: files passed over, labels not used
    unlabelled: str | None = None  # why ids are not known; None: they are
    clothes: NDArray[np.int64] | None = None  # [n] what the person wears; -1: not known
    id_names: tuple[str, ...] = ()  # ids that are names: their numbers are `number_of` these


@dataclass(frozen=True)
class Dataset:
    """Query and gallery of the test side of a data set; both lists are labelled."""

    query: ImageList
    gallery: ImageList


class Image(NamedTuple):
    """One labelled image; images sort by path."""

    path: Path
    pid: int
    camid: int
    clothes: int = NO_CLOTHES


def image_list(images: Iterable[Image]) -> ImageList:
    """Return the images as a labelled list, in the order given."""
    rows = list(images)
    clothes = np.array([row.clothes for row in rows], np.int64)
    return ImageList(
        paths=tuple(row.path for row in rows),
        pids=np.array([row.pid for row in rows], np.int64),
        camids=np.array([row.camid for row in rows], np.int64),
        clothes=None if (clothes == NO_CLOTHES).all() else clothes,
    )


def make_dataset(query: Iterable[Image], gallery: Iterable[Image], home: Path) -> Dataset:
    """Return the data set; InputError if one side of it has no image."""
    dataset = Dataset(image_list(query), image_list(gallery))
    for side, images in (("query", dataset.query), ("gallery", dataset.gallery)):
        if not images.paths:
            raise InputError(f"{home} has no {side} image")
    return dataset

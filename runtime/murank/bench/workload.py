"""What is asked, and in which gallery: images on disk, and features around those of the queries.

A query is one of a few images with noise of its own, so that nobody has seen it before. A gallery
is made of clusters of near features, one around each of those images, others for the bulk; each
cluster holds every image of the pool once, but for the last, which may be cut short and is never
asked for. The candidates of a query are therefore different images as far as the encoder tells the
images of queries apart: where their clusters overlap, one may come twice. A gallery of any size
costs no more than its pool to look at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from murank._exceptions import InputError
from murank.bench.bench_settings import BenchSettings
from murank.datasets import list_images
from murank.images import load_image

Progress = Callable[[str, int, int], None]
_CAMERAS = 6
_CROP_SIZE = 64, 128  # width, height
_PATCHES = 16, 8  # down, across
_GRAIN = 4.0  # of 255
_PIXEL_NOISE = 2.0  # of 255, that makes a query new
_QUALITY = 92
_NEAR = 0.5  # length of the noise inside a cluster, beside unit features
_SLOTS = 64  # files of single queries, used in turn


@dataclass(frozen=True)
class Workload:
    """Images of a benchmark."""

    asked: tuple[Image.Image, ...]  # what queries are made from
    pool: tuple[Path, ...]  # distinct gallery images
    cameras: NDArray[np.integer[Any]] | None  # of each, where known
    notes: tuple[str, ...] = ()  # on how they were found

    def gallery(self, size: int) -> list[Path]:
        """Images of a gallery of that size, in turn."""
        return [self.pool[i % len(self.pool)] for i in range(size)]

    def camids(self, size: int) -> NDArray[np.integer[Any]] | None:
        """Cameras of these images, [size]."""
        return None if self.cameras is None else np.resize(self.cameras, size)


def made_workload(
    folder: Path, settings: BenchSettings, progress: Progress | None = None
) -> Workload:
    """Write crops of patches of colour into JPEG files of `folder`: nobody is on them."""
    total = settings.asked + settings.pool
    paths = []
    for number in range(total):
        paths.append(folder / f"crop-{number}.jpg")
        _patches(np.random.default_rng([settings.seed, 7, number])).save(
            paths[-1], quality=_QUALITY
        )
        if progress is not None:
            progress("crops", number + 1, total)
    return _workload(paths, settings.asked, np.arange(total) % _CAMERAS, {})


def _patches(random: np.random.Generator) -> Image.Image:
    """As smooth as photographs are, so that decoding costs what it does there."""
    coarse = Image.fromarray(random.integers(0, 256, (*_PATCHES, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(_CROP_SIZE, Image.Resampling.BICUBIC), np.float32)
    grainy = smooth + random.normal(0, _GRAIN, smooth.shape)
    return Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))


def given_workload(
    source: Path, settings: BenchSettings, reading: Mapping[str, Any] = MappingProxyType({})
) -> Workload:
    """Choose images of a folder or .csv; `reading` are keyword arguments of `load_image`.

    Raises
    ------
    InputError
        There are too few for the candidates of a query to be different, or one that queries are
        made from cannot be used.
    """
    listed = list_images(source)
    paths = listed.paths
    needed = settings.candidates + 1
    if len(paths) < needed:
        raise InputError(
            f"{source} holds {len(paths)} images, and {settings.candidates} candidates and a query "
            f"are {needed}: pass a smaller --candidates, or leave --images out"
        )
    order = np.random.default_rng([settings.seed, 3]).permutation(len(paths))
    asked = min(settings.asked, len(paths) - settings.candidates)
    chosen = [paths[i] for i in order[: asked + settings.pool]]
    cameras = None if listed.camids is None else listed.camids[order[: len(chosen)]]
    return replace(_workload(chosen, asked, cameras, reading), notes=listed.notes)


def _workload(
    paths: Sequence[Path],
    asked: int,
    cameras: NDArray[np.integer[Any]] | None,
    reading: Mapping[str, Any],
) -> Workload:
    images = tuple(load_image(path, **reading) for path in paths[:asked])
    return Workload(images, tuple(paths[asked:]), None if cameras is None else cameras[asked:])


def gallery_features(
    asked: NDArray[np.floating[Any]], pool: int, settings: BenchSettings
) -> NDArray[np.float32]:
    """Unit features [G,D]: row i belongs to cluster i // pool, and to image i % pool.

    `asked` [A,D] are those of the images that queries are made from: centres of the first
    clusters. The centres of the others lie a unit step away from them.
    """
    random = np.random.default_rng([settings.seed, 4])
    size = settings.gallery_size
    clusters = -(-size // pool)
    centres = np.resize(asked, (clusters, asked.shape[1])).astype(np.float32)
    centres[len(asked) :] += _noise(random, clusters - len(asked), asked.shape[1], length=1.0)
    rows = np.repeat(_unit(centres), pool, axis=0)[:size]
    rows += _noise(random, size, asked.shape[1], length=_NEAR)
    return _unit(rows)


def random_features(count: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Unit rows [count,dim] that stand for features nobody has computed."""
    return _unit(_noise(np.random.default_rng([seed, 5]), count, dim, length=1.0))


def _noise(
    random: np.random.Generator, count: int, dim: int, *, length: float
) -> NDArray[np.float32]:
    return _unit(random.standard_normal((max(count, 0), dim), dtype=np.float32)) * np.float32(
        length
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


class NewQueries:
    """Writes query images, each with noise of its own; equal seeds, equal images."""

    def __init__(
        self,
        folder: Path,
        asked: Sequence[Image.Image],
        seed: int,
        *,
        progress: Progress | None = None,
    ) -> None:
        self._folder, self._asked, self._progress = folder, asked, progress
        self._random = np.random.default_rng([seed, 6])
        self._made = 0

    def take(self, count: int) -> list[Path]:
        """Make that many; files of earlier calls may be used again."""
        made = []
        for slot in self._slots(count):
            made.append(self._write(slot))
            # A few are made between two queries, where there is nobody to wait.
            if self._progress is not None and count > _SLOTS:
                self._progress("queries", len(made), count)
        return made

    def _slots(self, count: int) -> range:
        # Few queries are made one after the other, many beforehand and all at once.
        first = 0 if count > _SLOTS else self._made % _SLOTS
        return range(first, first + count)

    def _write(self, slot: int) -> Path:
        base = np.asarray(self._asked[self._made % len(self._asked)])
        self._made += 1
        noise = self._random.normal(0, _PIXEL_NOISE, base.shape).astype(np.float32)
        path = self._folder / f"query-{slot}.jpg"
        Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8)).save(path, quality=_QUALITY)
        return path

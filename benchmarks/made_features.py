"""Seeded synthetic features with what makes re-identification hard: cameras, views, strangers.

    python benchmarks/made_features.py -o features.npz

Numbers, no person behind them: something to try `murank rerank` with.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.rerank.features import FeatureSet, save_features

_DISTRACTOR_PID = 0  # as in Market-1501; people of the set are numbered from 1
_LEAST = {"num_ids": 1, "num_cameras": 2, "images_per_camera": 2, "dim": 2}
_DIRECTIONS = 32  # in which persons and views differ
_VIEW = 0.7  # size of what a camera's view of a person adds


@dataclass(frozen=True)
class _Images:
    """Who and where, a row an image."""

    pids: NDArray[np.int64]
    camids: NDArray[np.int64]
    numbers: NDArray[np.int64]  # tells images of one person and camera apart


def make_features(
    *,
    num_ids: int = 150,
    num_cameras: int = 6,
    images_per_camera: int = 4,
    num_distractors: int = 600,
    dim: int = 128,
    camera_shift: float = 0.4,
    noise: float = 1.0,
    seed: int = 0,
) -> FeatureSet:
    """Make a feature set in the customary layout; the same arguments give the same numbers.

    Parameters
    ----------
    num_ids, num_cameras, images_per_camera
        Each person is seen by two to all cameras; the first image of each camera is a query.
    num_distractors
        Gallery images of strangers (pid 0).
    dim
        Length of a feature.
    camera_shift, noise
        Size of what the camera and the single image add, against 1 for the person.

    Raises
    ------
    InputError
        A size is too small, or a strength negative.
    """
    sizes = {
        "num_ids": num_ids,
        "num_cameras": num_cameras,
        "images_per_camera": images_per_camera,
        "num_distractors": num_distractors,
        "dim": dim,
        "seed": seed,
    }
    _check(sizes, {"camera_shift": camera_shift, "noise": noise})
    random = np.random.default_rng(seed)
    images = _draw_images(random, num_ids, num_cameras, images_per_camera, num_distractors)
    features = _draw_features(random, images, dim, camera_shift, noise)
    is_query = (images.numbers == 0) & (images.pids != _DISTRACTOR_PID)
    order = np.concatenate([np.flatnonzero(is_query), np.flatnonzero(~is_query)])
    num_query = int(is_query.sum())
    paths = [
        f"{'query' if row < num_query else 'gallery'}/{images.pids[i]:04d}_c{images.camids[i]}"
        f"_{images.numbers[i]:05d}.jpg"
        for row, i in enumerate(order)
    ]
    return FeatureSet(
        features[order], np.array(paths), images.pids[order], images.camids[order], num_query
    )


def _check(sizes: Mapping[str, int], strengths: Mapping[str, float]) -> None:
    for name, value in sizes.items():
        if value < _LEAST.get(name, 0):
            raise InputError(f"{name} must be at least {_LEAST.get(name, 0)}, got {value}")
    for name, strength in strengths.items():
        if not 0 <= strength < np.inf:
            raise InputError(f"{name} must be finite and at least 0, got {strength}")


def _draw_images(
    random: np.random.Generator,
    num_ids: int,
    num_cameras: int,
    images_per_camera: int,
    num_distractors: int,
) -> _Images:
    seen = random.random((num_ids, num_cameras)).argsort(axis=1) < random.integers(
        2, num_cameras + 1, size=(num_ids, 1)
    )
    people, cameras = np.nonzero(seen)
    pids = np.repeat(people + 1, images_per_camera)
    camids = np.repeat(cameras + 1, images_per_camera)
    numbers = np.tile(np.arange(images_per_camera), len(people))
    strangers = np.full(num_distractors, _DISTRACTOR_PID)
    return _Images(
        np.concatenate([pids, strangers]),
        np.concatenate([camids, random.integers(1, num_cameras + 1, num_distractors)]),
        np.concatenate([numbers, np.arange(num_distractors)]),
    )


def _draw_features(
    random: np.random.Generator, images: _Images, dim: int, camera_shift: float, noise: float
) -> NDArray[np.float32]:
    """Person + camera + the person as this camera sees them + the image itself, unit rows.

    Persons and views share a few directions, as a trained encoder's features do: this is what
    makes neighbours of neighbours worth asking.
    """
    count = len(images.pids)
    strangers = images.pids.max() + 1 + np.arange(count)
    owners = np.where(images.pids == _DISTRACTOR_PID, strangers, images.pids)
    _, sights = np.unique(owners * (images.camids.max() + 1) + images.camids, return_inverse=True)
    basis = random.standard_normal((_DIRECTIONS, dim)) / np.sqrt(_DIRECTIONS)
    persons = random.standard_normal((owners.max() + 1, _DIRECTIONS)) @ basis
    views = random.standard_normal((sights.max() + 1, _DIRECTIONS)) @ basis
    cameras = random.standard_normal((images.camids.max() + 1, dim))
    features = persons[owners] + _VIEW * views[sights] + camera_shift * cameras[images.camids]
    features += noise * random.standard_normal((count, dim))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = features.astype(np.float32)
    return unit


def main() -> None:
    """Write a feature set of the default sizes, or of others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--ids", type=int, default=150, help="people")
    parser.add_argument("--distractors", type=int, default=600, help="strangers' images")
    parser.add_argument("--dim", type=int, default=128, help="length of a feature")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made = make_features(
        num_ids=args.ids, num_distractors=args.distractors, dim=args.dim, seed=args.seed
    )
    save_features(args.output, made)
    print(f"{made.num_query} queries, {made.num_gallery} gallery images: {args.output}")


if __name__ == "__main__":
    main()

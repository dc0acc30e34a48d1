"""Crops of many broad domains, as arrays: what the miniature MLLM sees before it is adapted."""

from __future__ import annotations

import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from murank.images import Preprocessing, to_pixels
from murank_export.world import draw_crop, make_domain, make_people
from murank_export.world.people import BAGS, HATS, PATTERNS, Person

SIZE = (128, 64)  # height, width of the miniature's images: as crops are drawn
PREPROCESSING = Preprocessing(*SIZE, "bicubic")
PEOPLE, SHOTS = 40, 5  # of one domain; crops of a person, each from another camera
# What the vision tower learns to name, and how many kinds of each there are.
ATTRIBUTES = {
    "hair_style": 3, "hair": 5, "skin": 4, "top": 16, "second": 16, "pattern": 5, "sleeves": 2,
    "legs": 3, "legs_colour": 16, "shoes": 16, "bag": 4, "bag_colour": 16, "hat": 2,
    "hat_colour": 16,
}  # fmt: skip
NOTHING = -100  # no such thing is there to be named


@dataclass(frozen=True)
class Pool:
    """Crops, person after person, domain after domain."""

    pixels: NDArray[np.uint8]  # [N,3,H,W]
    attributes: NDArray[np.int64]  # [N,len(ATTRIBUTES)]
    domains: NDArray[np.int64]  # [N]
    people: NDArray[np.int64]  # [N], numbered over all domains

    def places(self, first: int, count: int) -> Pool:
        """Return some of its domains."""
        rows = slice(first * PEOPLE * SHOTS, (first + count) * PEOPLE * SHOTS)
        return Pool(*(array[rows] for array in vars(self).values()))


def make_pool(domains: int, *, first: int = 0, workers: int = 2) -> Pool:
    """Draw the crops of broad domains `first` to `first + domains - 1`."""
    numbers = range(first, first + domains)
    with ProcessPoolExecutor(workers) as processes:
        parts = list(processes.map(_draw_domain, numbers, chunksize=4))
    count = PEOPLE * SHOTS
    return Pool(
        np.concatenate([pixels for pixels, _ in parts]),
        np.concatenate([attributes for _, attributes in parts]),
        np.repeat(np.arange(domains), count),
        np.repeat(np.arange(domains * PEOPLE), SHOTS),
    )


def load_pool(cache: Path, domains: int, *, first: int = 0) -> Pool:
    """Return the pool, kept in a file for later runs; ValueError if the file holds another."""
    if not cache.exists():
        aside = cache.with_suffix(".unfinished.npz")
        np.savez(aside, **vars(make_pool(domains, first=first)))
        aside.rename(cache)
    with np.load(cache) as arrays:
        pool = Pool(**{name: arrays[name] for name in arrays.files})
    wanted = [attributes_of(p) for d in range(first, first + domains) for p in pool_people(d)]
    if not np.array_equal(pool.attributes[::SHOTS], np.array(wanted)):
        raise ValueError(f"{cache} holds a pool of other people; delete it")
    return pool


def pool_people(number: int) -> list[Person]:
    """Return the people of one broad domain."""
    return make_people(PEOPLE, seed=1_000_000 + number)


def attributes_of(person: Person) -> list[int]:
    """Return the labels of a person, NOTHING for the colour of what is not there."""
    values = {name: int(getattr(person, name)) for name in ATTRIBUTES}
    if PATTERNS[person.pattern] == "plain":
        values["second"] = NOTHING
    if BAGS[person.bag] == "none":
        values["bag_colour"] = NOTHING
    if HATS[person.hat] == "none":
        values["hat_colour"] = NOTHING
    return list(values.values())


def _draw_domain(number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    domain = make_domain(f"broad-{number}")
    people = pool_people(number)
    random = np.random.default_rng([number, 5])
    pixels, attributes = [], []
    for index, person in enumerate(people):
        cameras = random.permutation(len(domain.cameras))[:SHOTS]
        for shot, camera in enumerate(cameras.tolist()):
            crop = draw_crop(person, domain, camera, [number, index, shot, 7])
            pixels.append(to_pixels(_as_file(crop, domain.cameras[camera].quality), PREPROCESSING))
            attributes.append(attributes_of(person))
    return np.stack(pixels), np.array(attributes, np.int64)


def _as_file(crop: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    crop.save(file, "JPEG", quality=quality)
    return Image.open(file)

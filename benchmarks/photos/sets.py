"""Sets of photographs by name: who is on an image, which camera took it, what is a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from murank import InputError
from murank.datasets import DATASETS, Dataset, ImageList, list_images, load_dataset
from murank.datasets.image_files import find_home, images_below
from murank.datasets.image_lists import Image, image_list, make_dataset
from murank.datasets.msmt17 import MSMT17_LAYOUT, _listed
from murank.datasets.splits import NUM_SPLITS

_Labels = tuple[int, int]  # pid, camid


@dataclass(frozen=True)
class Flat:
    """Names of a set that has no query and gallery of its own; we choose them."""

    pattern: re.Pattern[str]  # of the folder and the name
    label: Callable[[re.Match[str]], _Labels]
    layout: str  # in words


FLAT: Mapping[str, Flat] = {
    "cuhk01": Flat(
        re.compile(r".*/([0-9]{4})([0-9]{3})\.\w+"),
        lambda name: (int(name[1]), int(int(name[2]) > 2)),
        "person and index, 0001003.png; 001 and 002 are one camera, 003 and 004 the other",
    ),
    "cuhk03": Flat(
        re.compile(r".*/([0-9]{4})_([0-9]{2})\.\w+"),
        lambda name: (int(name[1]), int(int(name[2]) > 4)),
        "person and index, 0000_05.jpg; 0 to 4 are one camera, 5 to 9 the other",
    ),
    "pku-reid": Flat(
        re.compile(r".*?([0-9]+)/([0-9]{2})_[0-9]+\.\w+"),
        lambda name: (int(name[1]), int(name[2])),
        "a folder a person, and in it camera and index, 009/02_2.png",
    ),
}
TRAINING: Mapping[str, str] = {  # folder of training images, under the set's root or below it
    "market1501": "bounding_box_train", "dukemtmc": "bounding_box_train",
    "cuhk03-np": "detected/bounding_box_train",
}  # fmt: skip
_HOMES = {
    "market1501": ("", "Market-1501-v15.09.15"), "dukemtmc": ("", "DukeMTMC-reID"),
    "cuhk03-np": ("", "CUHK03-NP"),
}  # fmt: skip
SPLIT_SETS = tuple(name for name, reader in DATASETS.items() if reader.option == "split")


@dataclass(frozen=True)
class Test:
    """Query and gallery to be measured."""

    name: str  # of the set: figures of the same name are averaged
    folder: str  # of its own results
    data: Dataset


def read_tests(name: str, root: Path) -> list[Test]:
    """Read a set's test side: as published, ten random halves of the small ones, or our split.

    Names that are no set's are yours: a folder in Market-1501 names or a .csv (path,pid,camid).

    Raises InputError.
    """
    if name in SPLIT_SETS:
        splits = range(NUM_SPLITS)
        return [
            Test(name, f"{name}-{split}", load_dataset(name, root, split=split)) for split in splits
        ]
    if name in DATASETS:
        return [Test(name, name, load_dataset(name, root))]
    return [Test(name, name, first_of_each_camera(read_all(name, root), root))]


def read_training(name: str, root: Path) -> ImageList:
    """Read the training images of a set, or all of one that has no sides. Raises InputError."""
    if name in TRAINING:
        home = find_home(root, _HOMES[name], [TRAINING[name]], f"{TRAINING[name]}/")
        return _labelled(list_images(home / TRAINING[name]), root)
    if name == "msmt17":
        return _msmt17_training(root)
    if name in DATASETS:
        raise InputError(f"--train {name}: the method only tests on {name}")
    return read_all(name, root)


def read_all(name: str, root: Path) -> ImageList:
    """Read all images of a set without sides, sorted by path. Raises InputError."""
    if name not in FLAT:
        return _labelled(list_images(root), root)
    flat = FLAT[name]
    if not root.is_dir():
        raise InputError(f"{name}:{root}: no such folder")
    found = []
    for path in images_below(root):
        match = flat.pattern.fullmatch(path.as_posix())
        if match is None:
            raise InputError(f"{path}: the names of {name} are {flat.layout}")
        found.append(Image(path, *flat.label(match)))
    if not found:
        raise InputError(f"{name}:{root} holds no image")
    return image_list(found)


def first_of_each_camera(images: ImageList, root: Path) -> Dataset:
    """Split: the first image of each person and camera is a query, the rest is the gallery.

    A query that nobody in another camera's gallery matches is left out. Raises InputError.
    """
    assert images.pids is not None and images.camids is not None  # noqa: PT018  of readers here
    rows = [
        Image(path, int(pid), int(camid))
        for path, pid, camid in zip(images.paths, images.pids, images.camids, strict=True)
    ]
    queries: dict[_Labels, Image] = {}
    gallery = [row for row in rows if queries.setdefault((row.pid, row.camid), row) is not row]
    cameras: dict[int, set[int]] = {}
    for row in gallery:
        cameras.setdefault(row.pid, set()).add(row.camid)
    matched = [row for row in queries.values() if cameras.get(row.pid, set()) - {row.camid}]
    return make_dataset(matched, gallery, root)


def as_csv(images: ImageList) -> str:
    """A list that murank's verbs read."""
    lines = ["path,pid,camid"]
    assert images.pids is not None and images.camids is not None  # noqa: PT018  of readers here
    for path, pid, camid in zip(images.paths, images.pids, images.camids, strict=True):
        quoted = str(path.absolute()).replace('"', '""')
        lines.append(f'"{quoted}",{pid},{camid}')
    return "\n".join(lines) + "\n"


def joined(lists: list[ImageList]) -> ImageList:
    """Several training sets as one: nobody and no camera of one is in another."""
    images: list[Image] = []
    pid = camid = 0
    for one in lists:
        assert one.pids is not None and one.camids is not None  # noqa: PT018  of readers here
        people, cameras = (np.unique(ids, return_inverse=True)[1] for ids in (one.pids, one.camids))
        images += map(Image, one.paths, (people + pid).tolist(), (cameras + camid).tolist())
        pid, camid = pid + int(people.max()) + 1, camid + int(cameras.max()) + 1
    return image_list(images)


def _labelled(images: ImageList, root: Path) -> ImageList:
    if images.pids is None or images.camids is None:
        known = ", ".join([*DATASETS, *FLAT])
        raise InputError(
            f"{images.unlabelled or root}; name a set that is known ({known}), or a .csv with "
            "path,pid,camid"
        )
    return images


def _msmt17_training(root: Path) -> ImageList:
    homes = ("", "MSMT17_V1", "MSMT17_V2")
    home = find_home(root, homes, ["list_train.txt", "list_val.txt"], MSMT17_LAYOUT)
    folder = next(
        (home / name for name in ("train", "mask_train_v2") if (home / name).is_dir()), None
    )
    if folder is None:
        raise InputError(f"{home} lacks train or mask_train_v2")
    lists = [home / name for name in ("list_train.txt", "list_val.txt")]
    return image_list(image for file in lists for image in _listed(file, folder))

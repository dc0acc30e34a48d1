"""GRID (underground re-identification): 250 people seen twice, 775 seen once, eight cameras."""

import re
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.image_files import find_home, images_in
from murank.datasets.image_lists import Dataset, Image, make_dataset
from murank.datasets.splits import (
    by_folder_and_name,
    draw_training_pids,
    find_split,
    listed_images,
)

GRID_LAYOUT = (
    "probe/ and gallery/ with names like 0001_1_25004_107_32_106_221.jpeg (person, camera, ...), "
    "itself or in underground_reid/"
)
_FOLDERS = ("probe", "gallery")
_HOMES = ("", "underground_reid", "GRID", "grid", "grid/underground_reid")
_NAME = re.compile(r"([0-9]{1,9})_([1-9][0-9]{0,8})_")
_DISTRACTOR = 0


def read_grid(root: Path, *, split: int = 0) -> Dataset:
    """Read a test half of GRID: 125 probes, 125 + 775 gallery images; sorted by path.

    The ten halves of the release are in features_and_partitions.mat, which is not read: where
    a splits.json of torchreid made from it lies beside the images its split is taken, otherwise one
    of ten drawn halves. Distractors, named 0000, have pid 0 and are in every gallery. Camera
    ids are those of the names minus one.
    """
    home = find_home(root, _HOMES, _FOLDERS, GRID_LAYOUT)
    probes, gallery = (_labelled(home / folder) for folder in _FOLDERS)
    halves = find_split(root, home, ("splits.json",), split)
    if halves is not None:
        file, chosen = halves
        probes = listed_images(by_folder_and_name(probes), chosen, "query", file)
        gallery = listed_images(by_folder_and_name(gallery), chosen, "gallery", file)
        return make_dataset(probes, gallery, home)
    _check_pairs(probes, gallery, home)
    training = draw_training_pids("grid", split, (image.pid for image in probes))
    probes, gallery = (
        [image for image in images if image.pid not in training] for images in (probes, gallery)
    )
    return make_dataset(probes, gallery, home)


def _labelled(folder: Path) -> list[Image]:
    images = []
    for path in images_in(folder):
        match = _NAME.match(path.name)
        if match is None:
            raise InputError(f"{path}: the name should begin with person and camera, as 0001_1_")
        images.append(Image(path, int(match[1]), int(match[2]) - 1))
    return images


def _check_pairs(probes: list[Image], gallery: list[Image], home: Path) -> None:
    seen = {image.pid for image in gallery} - {_DISTRACTOR}
    alone = sorted({image.pid for image in probes} ^ seen)
    if alone:
        lacking = "probe" if alone[0] in seen else "gallery"
        raise InputError(f"{home / lacking} lacks an image of person {alone[0]:04d}")

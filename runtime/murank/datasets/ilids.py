"""QMUL i-LIDS: 476 images of 119 people in an airport; which camera took which is not published."""

import re
from collections import defaultdict
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.image_files import find_home, images_in
from murank.datasets.image_lists import Dataset, Image, make_dataset
from murank.datasets.splits import draw_key, draw_training_pids, find_split, listed_images

ILIDS_LAYOUT = (
    "Persons/ with names like 0001001.jpg (four digits person, three digits image), "
    "itself or in i-LIDS_Pedestrian/"
)
_FOLDER = "Persons"
_HOMES = ("", "i-LIDS_Pedestrian", "ilids/i-LIDS_Pedestrian")
_NAME = re.compile(r"([0-9]{4})([0-9]{3})\.[A-Za-z]+")


def read_ilids(root: Path, *, split: int = 0) -> Dataset:
    """Read a test half of i-LIDS, 60 people: one image as query, one as gallery; sorted by path.

    Where a splits.json of torchreid lies beside the images its split is taken. Otherwise one of
    ten drawn halves, and of a test person's images the two whose sha256 of "ilids SPLIT NAME" is
    smallest: the first is the query. The camera id is the number of the image minus one, as
    torchreid has it: each image counts as taken by another camera.
    """
    home = find_home(root, _HOMES, (_FOLDER,), ILIDS_LAYOUT)
    images = _labelled(home / _FOLDER)
    halves = find_split(root, home / _FOLDER, ("splits.json",), split)
    if halves is not None:
        file, chosen = halves
        known = {image.path.name: image for image in images}  # no folders in this file
        query, gallery = (listed_images(known, chosen, side, file) for side in ("query", "gallery"))
        return make_dataset(query, gallery, home)
    pairs = _draw_pairs(images, split)
    return make_dataset((one for one, _ in pairs), (other for _, other in pairs), home)


def _labelled(folder: Path) -> list[Image]:
    images = []
    for path in images_in(folder):
        match = _NAME.fullmatch(path.name)
        if match is None or int(match[2]) == 0:
            raise InputError(f"{path}: the name should be seven digits, as 0001001.jpg")
        images.append(Image(path, int(match[1]), int(match[2]) - 1))
    return images


def _draw_pairs(images: list[Image], split: int) -> list[tuple[Image, Image]]:
    people: defaultdict[int, list[Image]] = defaultdict(list)
    for image in images:
        people[image.pid].append(image)
    training = draw_training_pids("ilids", split, people)
    pairs = []
    for pid in sorted(people.keys() - training):
        drawn = sorted(people[pid], key=lambda image: draw_key("ilids", split, image.path.name))
        if len(drawn) < 2:
            raise InputError(f"{drawn[0].path} is the only image of its person; two are needed")
        pairs.append((drawn[0], drawn[1]))
    return pairs

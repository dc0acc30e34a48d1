"""VIPeR: 632 people, one image each from two cameras."""

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

VIPER_LAYOUT = "cam_a/ and cam_b/ with names like 000_45.bmp (person, angle), itself or in VIPeR/"
_CAMERAS = ("cam_a", "cam_b")
_HOMES = ("", "VIPeR", "viper", "viper/VIPeR")
_NAME = re.compile(r"([0-9]{1,9})_[0-9]+\.[A-Za-z]+")


def read_viper(root: Path, *, split: int = 0) -> Dataset:
    """Read a test half of VIPeR, 316 people: cam_a queries, cam_b gallery; sorted by path.

    Where a splits.json of torchreid lies beside the images (or is called splits_viper.json) its
    split is taken; it has twenty, every second of which turns the cameras round. Otherwise one of
    ten drawn halves. Camera ids are 0 and 1, pids those of the names.
    """
    home = find_home(root, _HOMES, _CAMERAS, VIPER_LAYOUT)
    view_a, view_b = (_view(home / name, camid) for camid, name in enumerate(_CAMERAS))
    _check_pairs(view_a, view_b, home)
    halves = find_split(root, home, ("splits.json", "splits_viper.json"), split)
    if halves is not None:
        file, chosen = halves
        both = by_folder_and_name([*view_a.values(), *view_b.values()])
        query, gallery = (listed_images(both, chosen, side, file) for side in ("query", "gallery"))
        return make_dataset(query, gallery, home)
    training = draw_training_pids("viper", split, view_a)
    query, gallery = (
        sorted(image for image in view.values() if image.pid not in training)
        for view in (view_a, view_b)
    )
    return make_dataset(query, gallery, home)


def _view(folder: Path, camid: int) -> dict[int, Image]:
    images: dict[int, Image] = {}
    for path in images_in(folder):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise InputError(f"{path}: the name should be person and angle, as 000_45.bmp")
        pid = int(match[1])
        if pid in images:
            raise InputError(f"{path} and {images[pid].path.name} show the same person")
        images[pid] = Image(path, pid, camid)
    return images


def _check_pairs(view_a: dict[int, Image], view_b: dict[int, Image], home: Path) -> None:
    alone = sorted(view_a.keys() ^ view_b.keys())
    if alone:
        lacking = "cam_b" if alone[0] in view_a else "cam_a"
        raise InputError(f"{home / lacking} lacks an image of person {alone[0]:03d}")

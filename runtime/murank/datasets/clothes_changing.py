"""LTCC and PRCC: people who change their clothes; images say which, so that rules can ask."""

import re
from collections.abc import Iterator
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.image_files import find_home, folders_in, images_in
from murank.datasets.image_lists import Dataset, Image, make_dataset

LTCC_LAYOUT = (
    "query/ and test/ with names like 000_1_c3_015833.png (person, clothes, camera, frame), itself "
    "or in LTCC_ReID/"
)
PRCC_LAYOUT = "rgb/test/ with A/, B/ and C/, in each a folder a person, itself or in prcc/"
_LTCC_NAME = re.compile(r"([0-9]{1,9})_([0-9]{1,9})_c([1-9][0-9]{0,8})(?![0-9])")
_GALLERY, _SAME, _CHANGED = "ABC"  # cameras of PRCC, and what people wear there


def read_ltcc(root: Path) -> Dataset:
    """Read LTCC: 493 queries, 7050 gallery images, twelve cameras; sorted by path.

    Camera ids are those of the names minus one, clothes those of the names: outfits of one person
    are told apart by them, not of two.
    """
    home = find_home(root, ("", "LTCC_ReID", "LTCC"), ("query", "test"), LTCC_LAYOUT)
    return make_dataset(_of_ltcc(home / "query"), _of_ltcc(home / "test"), home)


def read_prcc(root: Path, *, queries: str = _CHANGED) -> Dataset:
    """Read PRCC: 3543 queries of camera C, in other clothes, 3384 gallery images of A; by path.

    `queries` "B": 3873 queries of that camera, in the clothes of A. Camera ids are 0 to 2, clothes
    0 of A and B, 1 of C. The field draws one gallery image a person ten times, or takes all, as
    here.
    """
    needs = [f"rgb/test/{camera}" for camera in (_GALLERY, queries)]
    home = find_home(root, ("", "prcc", "PRCC"), needs, PRCC_LAYOUT)
    query, gallery = (_of_prcc(home / "rgb" / "test", camera) for camera in (queries, _GALLERY))
    return make_dataset(query, gallery, home)


def _of_ltcc(folder: Path) -> Iterator[Image]:
    for path in images_in(folder):
        match = _LTCC_NAME.match(path.name)
        if match is None:
            raise InputError(
                f"{path}: the name should begin with person, clothes and camera, as 000_1_c3"
            )
        yield Image(path, int(match[1]), int(match[3]) - 1, int(match[2]))


def _of_prcc(folder: Path, camera: str) -> Iterator[Image]:
    for person in folders_in(folder / camera):
        if not (person.name.isascii() and person.name.isdigit()):
            raise InputError(f"{person}: the folder of a person should be a number, as 001")
        for path in images_in(person):
            yield Image(path, int(person.name), "ABC".index(camera), int(camera == _CHANGED))

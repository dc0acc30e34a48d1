"""VehicleID and CUHK-SYSU: which camera took an image is not known.

As the field does, all queries count as taken by camera 0 and the gallery by camera 1, so that no
match is dropped.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.image_files import find_home, images_in
from murank.datasets.image_lists import Dataset, Image, make_dataset
from murank.datasets.labels import JUNK_PID
from murank.datasets.splits import check_split, draw_key
from murank.files.text_table import text_lines

VEHICLEID_LAYOUT = (
    "image/ with names like 0000001.jpg and train_test_split/ with test_list_800.txt, "
    "test_list_1600.txt and test_list_2400.txt, itself or in VehicleID_V1.0/"
)
CUHK_SYSU_LAYOUT = (
    "query/ and gallery/ of crops with names like 00001_s1_0000012_0.jpg (the person first), "
    "itself or in cuhksysu4reid/"
)
_VEHICLE = re.compile(r"([0-9A-Za-z_]{1,99}) +([0-9]{1,9})")
_PERSON = re.compile(r"p?(-1|[0-9]{1,9})(?![0-9])")


def read_vehicleid(root: Path, *, vehicles: int, split: int = 0) -> Dataset:
    """Read a test set of VehicleID, of 800, 1600 or 2400 vehicles, in the order of its list.

    One image of each is the gallery, the others are queries: of each vehicle the image whose
    sha256 of "vehicleid SPLIT NAME" is smallest, in ten draws.
    """
    check_split(split, "vehicleid")
    name = f"train_test_split/test_list_{vehicles}.txt"
    homes = ("", "VehicleID_V1.0", "VehicleID", "vehicleid")
    home = find_home(root, homes, ("image", name), VEHICLEID_LAYOUT)
    listed = list(_listed(home / name, home / "image"))
    chosen: dict[int, Image] = {}
    for image in sorted(listed, key=lambda one: draw_key("vehicleid", split, one.path.stem)):
        chosen.setdefault(image.pid, image)
    query = (image for image in listed if image != chosen[image.pid])
    gallery = (image._replace(camid=1) for image in listed if image == chosen[image.pid])
    return make_dataset(query, gallery, home)


def read_cuhk_sysu(root: Path) -> Dataset:
    """Read crops of CUHK-SYSU as lifelong re-identification has them: 2900 queries; by path.

    Images of pid -1 are left out.
    """
    homes = ("", "cuhksysu4reid", "cuhk-sysu", "cuhksysu", "CUHK-SYSU")
    home = find_home(root, homes, ("query", "gallery"), CUHK_SYSU_LAYOUT)
    query, gallery = (_crops(home / name, camid) for camid, name in enumerate(("query", "gallery")))
    return make_dataset(query, gallery, home)


def _listed(file: Path, folder: Path) -> Iterator[Image]:
    for number, line in enumerate(text_lines(file), 1):
        if not line.strip():
            continue
        match = _VEHICLE.fullmatch(line.strip())
        if match is None:
            raise InputError(f"{file}, line {number}: should be like '0000001 12', got {line!r}")
        path = folder / f"{match[1]}.jpg"
        if not path.is_file():
            raise InputError(f"{file}, line {number}: {path} is missing")
        yield Image(path, int(match[2]), 0)


def _crops(folder: Path, camid: int) -> Iterator[Image]:
    for path in images_in(folder):
        match = _PERSON.match(path.name)
        if match is None:
            raise InputError(f"{path}: the name should begin with the person, as 00001_s1")
        if int(match[1]) != JUNK_PID:
            yield Image(path, int(match[1]), camid)

"""MSMT17: two lists name the images, in the release with faces (V1) and in the blurred one (V2)."""

import re
from collections.abc import Iterator
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.image_files import find_home, has_home
from murank.datasets.image_lists import Dataset, Image, make_dataset
from murank.datasets.market_style import MARKET_FOLDERS, read_in_layout
from murank.files.text_table import text_lines

MSMT17_LAYOUT = (
    "list_query.txt, list_gallery.txt and test/ (V1) or mask_test_v2/ (V2), "
    "itself or in MSMT17_V1/ or MSMT17_V2/; or query/ and bounding_box_test/ as Market-1501"
)
_LISTS = ("list_query.txt", "list_gallery.txt")
_FOLDERS = ("test", "mask_test_v2")
_HOMES = ("MSMT17_V1", "MSMT17_V2", "MSMT17", "MSMT")
# PID/PID_NUMBER_CAM_TIME_FRAME_BOX.jpg PID
_LINE = re.compile(r"([0-9]+/[0-9]+_[0-9]+_([0-9]{1,9})_[^/\s]+) ([0-9]{1,9})")


def read_msmt17(root: Path) -> Dataset:
    """Read MSMT17: 11659 queries, 82161 gallery images, 15 cameras, in the order of the lists.

    Pids are those of the lists; camera ids those of the names minus one. Where both releases lie
    in `root`, V1 is read: name the folder of V2 itself to have that one. Copies that were brought
    into the layout of Market-1501 (0000_c1_0002.jpg) are read as that, sorted by path.
    """
    homes = ("", *_HOMES)
    if not has_home(root, homes, _LISTS) and has_home(root, homes, MARKET_FOLDERS):
        return read_in_layout(root, _HOMES, MSMT17_LAYOUT)
    home = find_home(root, homes, _LISTS, MSMT17_LAYOUT)
    folders = [home / name for name in _FOLDERS if (home / name).is_dir()]
    if not folders:
        raise InputError(
            f"{home} lacks {' or '.join(_FOLDERS)}; {root} should hold {MSMT17_LAYOUT}"
        )
    query, gallery = (_listed(home / name, folders[0]) for name in _LISTS)
    return make_dataset(query, gallery, home)


def _listed(file: Path, folder: Path) -> Iterator[Image]:
    for number, line in enumerate(text_lines(file), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or int(match[2]) == 0:
            raise InputError(
                f"{file}, line {number}: should be like "
                f"'0000/0000_000_01_0303morning_0015_0.jpg 0', got {line!r}"
            )
        path = folder / match[1]
        if not path.is_file():
            raise InputError(f"{file}, line {number}: {path} is missing")
        yield Image(path, int(match[3]), int(match[2]) - 1)

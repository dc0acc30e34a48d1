"""Market-1501 and the sets that took over its layout: query/, bounding_box_test/, PID_cCAM names.

Camera ids are those of the names minus one, as torchreid and fast-reid count them. Images of
pid -1 are junk (boxes that fit badly) and are left out, as the field does; pid 0 is a distractor:
it matches nobody and stays in the gallery.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.image_files import find_home, images_in
from murank.datasets.image_lists import Dataset, Image, make_dataset
from murank.datasets.labels import JUNK_PID, Ids

BOXES = ("detected", "labeled")
MARKET1501_LAYOUT = (
    "query/ and bounding_box_test/ with names like 0001_c1s1_001051_00.jpg, "
    "itself or in Market-1501-v15.09.15/"
)
DUKEMTMC_LAYOUT = (
    "query/ and bounding_box_test/ with names like 0001_c2_f0046182.jpg, "
    "itself or in DukeMTMC-reID/"
)
CUHK03_NP_LAYOUT = (
    "detected/ or labeled/, each with query/ and bounding_box_test/ and names that begin 0001_c1_, "
    "itself or in CUHK03-NP/"
)
OCCLUDED_DUKE_LAYOUT = (
    "query/ and bounding_box_test/ with names like 0005_c2_f0046985.jpg, "
    "itself or in Occluded_Duke/"
)
VERI776_LAYOUT = (
    "image_query/ and image_test/ with names like 0002_c002_00030600_0.jpg (vehicle, camera, ...), "
    "itself or in VeRi/"
)
MARKET_FOLDERS = ("query", "bounding_box_test")
_NAME = re.compile(r"(-1|[0-9]{1,9})_c([0-9]{1,9})(?![0-9])")


def read_market1501(root: Path) -> Dataset:
    """Read Market-1501: 3368 queries, 15913 gallery images, six cameras; sorted by path."""
    return read_in_layout(
        root, ("Market-1501-v15.09.15", "market1501", "Market"), MARKET1501_LAYOUT
    )


def read_dukemtmc(root: Path) -> Dataset:
    """Read DukeMTMC-reID: 2228 queries, 17661 gallery images, eight cameras; sorted by path."""
    return read_in_layout(root, ("DukeMTMC-reID", "DukeMTMC", "Duke"), DUKEMTMC_LAYOUT)


def read_occluded_duke(root: Path) -> Dataset:
    """Read Occluded-Duke: 2210 queries, 17661 gallery images, eight cameras; sorted by path."""
    homes = ("Occluded_Duke", "Occluded-DukeMTMC", "Occluded-DukeMTMC-reID")
    return read_in_layout(root, homes, OCCLUDED_DUKE_LAYOUT)


def read_veri776(root: Path) -> Dataset:
    """Read VeRi-776: 1678 queries, 11579 gallery images, 20 cameras; sorted by path."""
    homes = ("VeRi", "VeRi-776", "VeRi_with_plate", "VeRi776")
    return read_in_layout(root, homes, VERI776_LAYOUT, ("image_query", "image_test"))


def read_cuhk03_np(root: Path, *, boxes: str = "detected") -> Dataset:
    """Read CUHK03 in the new protocol: 1400 queries, two cameras; sorted by path.

    `boxes` are those of the detector (5332 gallery images) or "labeled" by hand (5328).
    """
    if boxes not in BOXES:
        raise InputError(f"boxes must be one of {', '.join(BOXES)}, got {boxes!r}")
    folders = [f"{boxes}/{folder}" for folder in MARKET_FOLDERS]
    return read_in_layout(root, ("CUHK03-NP", "CUHK03"), CUHK03_NP_LAYOUT, folders)


def parse_name(name: str) -> tuple[int, int] | None:
    """Return pid and camid of PID_cCAM..., None for another name. Cameras are named from 1."""
    match = _NAME.match(name)
    if match is None or int(match[2]) == 0:
        return None
    return int(match[1]), int(match[2]) - 1


def names_say_cameras(paths: Sequence[Path], camids: Ids) -> bool:
    """Say whether the names of all images of known camera are PID_cCAM, with that camera."""
    known = [pair for pair in zip(paths, camids.tolist(), strict=True) if pair[1] >= 0]
    labels = [(parse_name(path.name), camid) for path, camid in known]
    return bool(known) and all(label is not None and label[1] == camid for label, camid in labels)


def is_nobody(path: str, pid: int) -> bool:
    """Say whether a pid stands for no person: below 0, or 0 in Market-1501 names."""
    label = parse_name(Path(path).name)
    return pid < 0 or (pid == 0 and label is not None and label[0] == 0)


def read_in_layout(
    root: Path, names: Sequence[str], layout: str, folders: Sequence[str] = MARKET_FOLDERS
) -> Dataset:
    """Read two folders of PID_cCAM names, of queries and gallery; `layout` in words."""
    home = find_home(root, ("", *names), folders, layout)
    query, gallery = (_labelled(home / folder) for folder in folders)
    return make_dataset(query, gallery, home)


def _labelled(folder: Path) -> Iterator[Image]:
    for path in images_in(folder):
        label = parse_name(path.name)
        if label is None:
            raise InputError(f"{path}: the name should begin with person and camera, as 0001_c1")
        if label[0] != JUNK_PID:
            yield Image(path, *label)

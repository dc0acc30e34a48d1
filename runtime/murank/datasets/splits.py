"""Random halves of people: those of a splits file where there is one, otherwise drawn here.

The field trains on one half of a small data set, tests on the other, and averages over ten such
splits. Its tools draw the halves once and keep them in a file; with such a file the numbers can be
compared image by image. Without one, the half of the people whose sha256 of "NAME SPLIT PID" is
smallest is for training: it needs no random generator, so no version of anything changes it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from murank._exceptions import InputError
from murank.datasets.image_lists import Image
from murank.files.stand_in import misread

NUM_SPLITS = 10


def draw_key(dataset: str, split: int, what: int | str) -> bytes:
    """Return what to sort by in order to shuffle people (pid) or images (file name)."""
    return hashlib.sha256(f"{dataset} {split} {what}".encode()).digest()


def check_split(split: int, owner: str) -> None:
    """Raise InputError unless it is the number of one of the drawn splits."""
    _check_range(split, NUM_SPLITS, owner)


def draw_training_pids(dataset: str, split: int, pids: Iterable[int]) -> set[int]:
    """Return the pids of the training half; with an odd number the test half is larger by one."""
    check_split(split, f"{dataset} without a splits file")
    shuffled = sorted(set(pids), key=lambda pid: draw_key(dataset, split, pid))
    return set(shuffled[: len(shuffled) // 2])


def find_split(
    root: Path, home: Path, names: Sequence[str], split: int
) -> tuple[Path, Mapping[str, Any]] | None:
    """Return the file and the split in it; None if no folder from `home` up to `root` has one.

    Raises
    ------
    InputError
        The file is no JSON list of splits, or has fewer than asked for.
    """
    folders = [home, *(folder for folder in home.parents if folder.is_relative_to(root))]
    for file in (folder / name for folder in folders for name in names):
        if file.is_file():
            return file, _read_split(file, split)
    return None


def listed_images(
    known: Mapping[str, Image], split: Mapping[str, Any], side: str, file: Path
) -> list[Image]:
    """Return the images that the split names for "query" or "gallery", sorted by path.

    An item is a path, or a list that begins with one. It is a path of the machine that wrote the
    file: its last two parts, the folder and the name, are looked up in `known`.
    """
    images = set()
    for item in _items(split, side, file):
        listed = item[0] if isinstance(item, list) and item else item
        if not isinstance(listed, str):
            raise InputError(f"{file}: {side} holds {item!r}, which names no image")
        tail = "/".join(listed.replace("\\", "/").split("/")[-2:])
        if tail not in known:
            raise InputError(
                f"{file}: {side} names {listed}, which is not here; is it of another data set?"
            )
        images.add(known[tail])
    return sorted(images)


def by_folder_and_name(images: Iterable[Image]) -> dict[str, Image]:
    """Return the images under "folder/name", as `listed_images` looks them up."""
    return {f"{image.path.parent.name}/{image.path.name}": image for image in images}


def listed_pids(split: Mapping[str, Any], side: str, file: Path) -> set[int]:
    """Return the pids that the split names."""
    pids = _items(split, side, file)
    wrong = [pid for pid in pids if type(pid) is not int]
    if wrong:
        raise InputError(f"{file}: {side} holds {wrong[0]!r}, which is no person id")
    return set(pids)


def _read_split(file: Path, split: int) -> Mapping[str, Any]:
    try:
        splits = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise misread(file, " is no JSON file, or it is truncated") from error
    if not isinstance(splits, list) or not all(isinstance(one, dict) for one in splits):
        raise InputError(f"{file} is no list of splits; move it away to have them drawn")
    _check_range(split, len(splits), str(file))
    chosen: Mapping[str, Any] = splits[split]
    return chosen


def _check_range(split: int, count: int, owner: str) -> None:
    if not 0 <= split < count:
        raise InputError(f"split {split} asked for, but {owner} has {count}, numbered from 0")


def _items(split: Mapping[str, Any], side: str, file: Path) -> list[Any]:
    items = split.get(side)
    if not isinstance(items, list) or not items:
        raise InputError(f"{file}: the split has no list {side!r}; is it of another data set?")
    return items

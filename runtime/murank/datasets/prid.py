"""PRID 2011, single shot: 385 people in camera A, 749 in camera B, the first 200 in both."""

from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.image_files import find_home
from murank.datasets.image_lists import Dataset, Image, make_dataset
from murank.datasets.splits import draw_training_pids, find_split, listed_pids

PRID_LAYOUT = (
    "cam_a/ and cam_b/ with names like person_0001.png, "
    "itself or in single_shot/ or prid_2011/single_shot/"
)
_CAMERAS = ("cam_a", "cam_b")
_HOMES = ("", "single_shot", "prid_2011/single_shot", "prid2011/prid_2011/single_shot")
_SHARED = range(1, 201)  # people that both cameras saw
_STRANGERS = range(201, 750)  # people of camera B only


def read_prid(root: Path, *, split: int = 0) -> Dataset:
    """Read a test half of PRID: 100 queries of cam_a, 100 + 549 gallery images of cam_b, by pid.

    Where a splits_single_shot.json of torchreid lies beside the images its split is taken,
    otherwise one of ten drawn halves. Camera ids are 0 and 1.
    """
    home = find_home(root, _HOMES, _CAMERAS, PRID_LAYOUT)
    pids = _test_pids(root, home, split)
    view_a, view_b = (home / name for name in _CAMERAS)
    query = [_image(view_a, pid, 0) for pid in pids]
    gallery = [_image(view_b, pid, 1) for pid in [*pids, *_STRANGERS]]
    return make_dataset(query, gallery, home)


def _test_pids(root: Path, home: Path, split: int) -> list[int]:
    halves = find_split(root, home, ("splits_single_shot.json",), split)
    if halves is None:
        return sorted(set(_SHARED) - draw_training_pids("prid", split, _SHARED))
    file, chosen = halves
    pids = sorted(listed_pids(chosen, "test", file))
    strange = [pid for pid in pids if pid not in _SHARED]
    if strange:
        raise InputError(f"{file}: person {strange[0]} is not in both cameras (1 to 200 are)")
    return pids


def _image(folder: Path, pid: int, camid: int) -> Image:
    path = folder / f"person_{pid:04d}.png"
    if not path.is_file():
        raise InputError(f"{path} is missing")
    return Image(path, pid, camid)

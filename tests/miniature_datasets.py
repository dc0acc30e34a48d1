"""Data sets in miniature: the customary folders and names, every image an empty file."""

from collections.abc import Iterable
from pathlib import Path

from murank.datasets import ImageList

VIPER_PIDS = (0, 1, 3, 45, 120, 873)  # numbers have gaps, as those of the release do
GRID_PIDS = range(1, 9)
ILIDS_PIDS = range(1, 8)


def touch(root: Path, names: Iterable[str]) -> None:
    files = [root / name for name in names]
    for folder in {file.parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        file.touch()


def names(images: ImageList, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in images.paths]


def pids(images: ImageList) -> list[int]:
    assert images.pids is not None
    assert images.pids.dtype == "int64"
    assert len(images.pids) == len(images.paths)
    return [int(pid) for pid in images.pids]


def camids(images: ImageList) -> list[int]:
    assert images.camids is not None
    assert images.camids.dtype == "int64"
    assert len(images.camids) == len(images.paths)
    return [int(camid) for camid in images.camids]


def make_viper(root: Path) -> Path:
    touch(root / "VIPeR", [f"cam_a/{pid:03d}_45.bmp" for pid in VIPER_PIDS])
    touch(root / "VIPeR", [f"cam_b/{pid:03d}_{90 + pid % 2}.bmp" for pid in VIPER_PIDS])
    return root


def make_grid(root: Path) -> Path:
    folder = root / "underground_reid"
    touch(folder, [f"probe/{pid:04d}_1_25004_107_32_106_221.jpeg" for pid in GRID_PIDS])
    touch(folder, [f"gallery/{pid:04d}_{2 + pid % 2}_25023_116_1_2_3.jpeg" for pid in GRID_PIDS])
    touch(folder, [f"gallery/0000_{camera}_25698_101_16_87_246.jpeg" for camera in (1, 8)])
    touch(folder, ["features_and_partitions.mat"])
    return root


def make_prid(root: Path) -> Path:
    folder = root / "prid_2011" / "single_shot"
    touch(folder / "cam_a", [f"person_{pid:04d}.png" for pid in range(1, 386)])
    touch(folder / "cam_b", [f"person_{pid:04d}.png" for pid in range(1, 750)])
    return root


def make_ilids(root: Path) -> Path:
    folder = root / "i-LIDS_Pedestrian" / "Persons"
    touch(folder, [f"{pid:04d}{n:03d}.jpg" for pid in ILIDS_PIDS for n in range(1, 3 + pid % 3)])
    return root

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from miniature_datasets import (
    GRID_PIDS,
    ILIDS_PIDS,
    VIPER_PIDS,
    camids,
    make_grid,
    make_ilids,
    make_prid,
    make_viper,
    names,
    pids,
    touch,
)

from murank import InputError
from murank.datasets import Dataset, load_dataset

MAKERS: dict[str, Callable[[Path], Path]] = {
    "viper": make_viper,
    "grid": make_grid,
    "prid": make_prid,
    "ilids": make_ilids,
}


def content(found: Dataset) -> tuple[Any, ...]:
    sides = (found.query, found.gallery)
    return tuple((images.paths, pids(images), camids(images)) for images in sides)


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_split_each_time_and_others_differ(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path)
    splits = [content(load_dataset(name, tmp_path, split=split)) for split in range(10)]
    assert splits == [content(load_dataset(name, tmp_path, split=split)) for split in range(10)]
    assert len({str(split) for split in splits}) > 5
    for split in (-1, 10):
        with pytest.raises(InputError, match=f"split {split} asked for, but {name} .* has 10"):
            load_dataset(name, tmp_path, split=split)


@pytest.mark.parametrize("split", range(3))
def test_viper(tmp_path: Path, split: int) -> None:
    found = load_dataset("viper", make_viper(tmp_path), split=split)
    chosen = pids(found.query)
    assert len(chosen) == 3
    assert chosen == sorted(set(chosen))
    assert set(chosen) < set(VIPER_PIDS)
    assert pids(found.gallery) == chosen
    assert (camids(found.query), camids(found.gallery)) == ([0] * 3, [1] * 3)
    assert names(found.query, tmp_path) == [f"VIPeR/cam_a/{pid:03d}_45.bmp" for pid in chosen]
    assert content(load_dataset("viper", tmp_path / "VIPeR", split=split)) == content(found)


def test_drawn_halves_stay_as_they_are(tmp_path: Path) -> None:
    """Published numbers depend on these; `printf 'viper 0 1' | sha256sum` and so on made them."""
    found = load_dataset("viper", make_viper(tmp_path / "viper"))
    assert pids(found.query) == [1, 3, 45]
    found = load_dataset("ilids", make_ilids(tmp_path / "ilids"))
    pairs = zip(found.query.paths, found.gallery.paths, strict=True)
    assert [(one.name, other.name) for one, other in pairs] == [
        ("0003001.jpg", "0003002.jpg"),
        ("0005001.jpg", "0005004.jpg"),
        ("0006002.jpg", "0006001.jpg"),
        ("0007003.jpg", "0007001.jpg"),
    ]


def test_viper_people_in_one_camera_only(tmp_path: Path) -> None:
    make_viper(tmp_path)
    touch(tmp_path / "VIPeR", ["cam_a/007_0.bmp"])
    with pytest.raises(InputError, match="cam_b lacks an image of person 007"):
        load_dataset("viper", tmp_path)
    touch(tmp_path / "VIPeR", ["cam_a/007_90.bmp"])
    with pytest.raises(InputError, match=r"007_90.bmp and 007_0.bmp show the same person"):
        load_dataset("viper", tmp_path)
    touch(tmp_path / "VIPeR", ["cam_a/007.bmp"])
    with pytest.raises(InputError, match=r"cam_a/007.bmp: the name should be person and angle"):
        load_dataset("viper", tmp_path)


@pytest.mark.parametrize("split", range(3))
def test_grid(tmp_path: Path, split: int) -> None:
    """Half of the people; strangers are in every gallery."""
    found = load_dataset("grid", make_grid(tmp_path), split=split)
    chosen = pids(found.query)
    assert len(chosen) == 4
    assert chosen == sorted(set(chosen))
    assert set(chosen) < set(GRID_PIDS)
    assert camids(found.query) == [0] * 4
    assert pids(found.gallery) == [0, 0, *chosen]
    assert camids(found.gallery) == [0, 7, *(1 + pid % 2 for pid in chosen)]
    assert names(found.gallery, tmp_path)[0] == (
        "underground_reid/gallery/0000_1_25698_101_16_87_246.jpeg"
    )


def test_grid_that_is_not_whole(tmp_path: Path) -> None:
    home = make_grid(tmp_path) / "underground_reid"
    (home / "probe" / "0003_1_25004_107_32_106_221.jpeg").unlink()
    with pytest.raises(InputError, match="probe lacks an image of person 0003"):
        load_dataset("grid", tmp_path)
    touch(home, ["gallery/0003.jpeg"])
    with pytest.raises(InputError, match=r"gallery/0003.jpeg: the name should begin with person"):
        load_dataset("grid", tmp_path)


@pytest.mark.parametrize("split", range(2))
def test_prid(tmp_path: Path, split: int) -> None:
    found = load_dataset("prid", make_prid(tmp_path), split=split)
    chosen = pids(found.query)
    assert len(chosen) == 100
    assert chosen == sorted(set(chosen))
    assert set(chosen) < set(range(1, 201))
    assert pids(found.gallery) == [*chosen, *range(201, 750)]
    assert (camids(found.query), camids(found.gallery)) == ([0] * 100, [1] * 649)
    home = tmp_path / "prid_2011" / "single_shot"
    assert names(found.query, home)[0] == f"cam_a/person_{chosen[0]:04d}.png"
    assert names(found.gallery, home)[-1] == "cam_b/person_0749.png"
    assert content(load_dataset("prid", home, split=split)) == content(found)
    (home / "cam_b" / "person_0749.png").unlink()
    with pytest.raises(InputError, match=r"person_0749\.png"):
        load_dataset("prid", tmp_path, split=split)


@pytest.mark.parametrize("split", range(3))
def test_ilids(tmp_path: Path, split: int) -> None:
    """Four of seven people; of each, one image on either side, never the same."""
    found = load_dataset("ilids", make_ilids(tmp_path), split=split)
    chosen = pids(found.query)
    assert len(chosen) == 4
    assert chosen == sorted(set(chosen))
    assert set(chosen) < set(ILIDS_PIDS)
    assert pids(found.gallery) == chosen
    assert set(found.query.paths).isdisjoint(found.gallery.paths)
    for images in (found.query, found.gallery):
        folder = "i-LIDS_Pedestrian/Persons"
        expected = zip(chosen, camids(images), strict=True)
        assert names(images, tmp_path) == [
            f"{folder}/{pid:04d}{camid + 1:03d}.jpg" for pid, camid in expected
        ]


def test_ilids_names_and_single_images(tmp_path: Path) -> None:
    folder = tmp_path / "Persons"
    touch(folder, ["0001001.jpg"])
    with pytest.raises(InputError, match=r"0001001\.jpg"):
        load_dataset("ilids", tmp_path)
    touch(folder, ["00010001.jpg"])
    with pytest.raises(InputError, match=r"00010001\.jpg"):
        load_dataset("ilids", tmp_path)


def write_splits(file: Path, *splits: Any) -> None:
    file.write_text(json.dumps(splits))


@pytest.mark.parametrize("file", ["splits.json", "VIPeR/splits_viper.json"])
def test_viper_with_a_splits_file(tmp_path: Path, file: str) -> None:
    """Paths in it are those of another machine; a split may turn the cameras round."""
    make_viper(tmp_path)
    side_a = [["/data/viper/VIPeR/cam_a/873_45.bmp", 0, 0], ["C:\\v\\cam_a\\001_45.bmp", 1, 0]]
    side_b = [["/data/viper/VIPeR/cam_b/001_91.bmp", 1, 1]]
    write_splits(
        tmp_path / file,
        {"train": [], "query": side_a, "gallery": side_b},
        {"train": [], "query": side_b, "gallery": side_a},
    )
    found = load_dataset("viper", tmp_path)
    assert (pids(found.query), camids(found.query)) == ([1, 873], [0, 0])
    assert (pids(found.gallery), camids(found.gallery)) == ([1], [1])
    found = load_dataset("viper", tmp_path, split=1)
    assert (pids(found.query), camids(found.query)) == ([1], [1])
    with pytest.raises(InputError, match=r"split 2 asked for, but \S+json has 2, numbered from 0"):
        load_dataset("viper", tmp_path, split=2)


def test_grid_with_a_splits_file(tmp_path: Path) -> None:
    make_grid(tmp_path)
    probe = ["x/probe/0002_1_25004_107_32_106_221.jpeg", 2, 0]
    gallery = ["x/gallery/0000_8_25698_101_16_87_246.jpeg", 0, 7]
    write_splits(tmp_path / "splits.json", {"query": [probe], "gallery": [gallery]})
    found = load_dataset("grid", tmp_path)
    assert (pids(found.query), camids(found.query)) == ([2], [0])
    assert (pids(found.gallery), camids(found.gallery)) == ([0], [7])


def test_prid_with_a_splits_file(tmp_path: Path) -> None:
    file = make_prid(tmp_path) / "splits_single_shot.json"
    write_splits(file, {"train": [1], "test": [200, 7]})
    found = load_dataset("prid", tmp_path)
    assert pids(found.query) == [7, 200]
    assert pids(found.gallery) == [7, 200, *range(201, 750)]
    write_splits(file, {"test": [7, 201]})
    with pytest.raises(InputError, match="person 201 is not in both cameras"):
        load_dataset("prid", tmp_path)
    write_splits(file, {"test": [7, "8"]})
    with pytest.raises(InputError, match="test holds '8', which is no person id"):
        load_dataset("prid", tmp_path)


def test_ilids_with_a_splits_file(tmp_path: Path) -> None:
    file = make_ilids(tmp_path) / "splits.json"
    write_splits(file, {"train": [], "query": ["0002003.jpg"], "gallery": ["0002001.jpg"]})
    found = load_dataset("ilids", tmp_path)
    assert (pids(found.query), camids(found.query)) == ([2], [2])
    assert (pids(found.gallery), camids(found.gallery)) == ([2], [0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "is no JSON file"),
        ("\xff", "is no JSON file"),
        ("[" * 100_000, "is no JSON file"),
        ("{}", "is no list of splits; move it away"),
        ("[[]]", "is no list of splits"),
        ("[]", "has 0"),
        ("[{}]", "the split has no list 'query'"),
        ('[{"query": []}]', "the split has no list 'query'"),
        ('[{"query": [5]}]', "query holds 5, which names no image"),
        ('[{"query": [[]]}]', r"query holds \[\], which names no image"),
        ('[{"query": ["0001001.jpg"]}]', "0001001.jpg"),
        ('[{"query": [["a/cam_a/002_45.bmp", 1, 0]]}]', "002_45.bmp, which is not here"),
    ],
)
def test_splits_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    make_viper(tmp_path)
    (tmp_path / "splits.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=f"splits.json.*{message}"):
        load_dataset("viper", tmp_path)


def test_splits_file_above_the_root_is_not_read(tmp_path: Path) -> None:
    (make_viper(tmp_path) / "splits.json").write_text("not ours")
    assert len(load_dataset("viper", tmp_path / "VIPeR").query.paths) == 3

"""Data sets with clothes, of vehicles, without cameras; and homes as people have them."""

import hashlib
from pathlib import Path

import pytest
from miniature_datasets import camids, names, pids, touch

from murank import InputError
from murank.datasets import Dataset, ImageList, load_dataset


def clothes(images: ImageList) -> list[int]:
    assert images.clothes is not None
    assert images.clothes.dtype == "int64"
    return [int(one) for one in images.clothes]


def labels(found: Dataset) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    query, gallery = (
        [*zip(pids(side), camids(side), strict=True)] for side in (found.query, found.gallery)
    )
    return query, gallery


DUKE = ["query/0005_c2_f0046985.jpg", "bounding_box_test/0005_c8_f0051781.jpg"]
HOMES = [
    ("occluded-duke", "Occluded_Duke", DUKE),
    ("occluded-duke", "Occluded-DukeMTMC", DUKE),
    ("occluded-duke", "occluded_duke/Occluded_Duke", DUKE),
    ("dukemtmc", "DukeMTMC-reID/DukeMTMC-reID", DUKE),
    ("dukemtmc", "dukemtmcreid", DUKE),
    ("DukeMTMC-reID", "dukemtmc/DukeMTMC-reID", DUKE),
    ("veri776", "VeRi", ["image_query/0005_c002_00030600_0.jpg", "image_test/0005_c008_1_0.jpg"]),
    ("VeRi-776", "veri-776/VeRi", ["image_query/0005_c2_1_0.jpg", "image_test/0005_c8_1_0.jpg"]),
    ("cuhk03np", "cuhk03-np/CUHK03-NP", [f"detected/{name}" for name in DUKE]),
    ("cuhk03_np", "cuhk03np", [f"detected/{name}" for name in DUKE]),
    ("msmt17", "MSMT17_V1", ["query/0005_c2_0002.jpg", "bounding_box_test/0005_c8_0003.jpg"]),
    ("MSMT17", "msmt17/MSMT17_V2", DUKE),
    ("msmt17", "MSMT17", DUKE),
    ("msmt17", "", DUKE),
]


@pytest.mark.parametrize(("name", "home", "files"), HOMES)
def test_homes_and_names(tmp_path: Path, name: str, home: str, files: list[str]) -> None:
    """Beside the folders of another data set of the same layout, which has other people."""
    touch(tmp_path / home, files)
    touch(tmp_path / "Market-1501-v15.09.15", [name.replace("0005", "0009") for name in DUKE])
    found = load_dataset(name, tmp_path)
    assert labels(found) == ([(5, 1)], [(5, 7)])
    assert names(found.query, tmp_path / home) == [files[0]]
    assert found.query.clothes is None


def test_another_data_set_is_not_taken(tmp_path: Path) -> None:
    touch(tmp_path / "DukeMTMC-reID", DUKE)
    for name in ("market1501", "occluded-duke", "msmt17"):
        with pytest.raises(InputError, match="not found"):
            load_dataset(name, tmp_path)


def test_ltcc(tmp_path: Path) -> None:
    touch(tmp_path / "LTCC_ReID", ["query/005_1_c3_015833.png", "query/045_12_c11_000001.png"])
    touch(
        tmp_path / "LTCC_ReID", ["test/005_2_c1_015000.png", "test/045_1_c12_2.png", "info/x.txt"]
    )
    found = load_dataset("ltcc", tmp_path)
    assert labels(found) == ([(5, 2), (45, 10)], [(5, 0), (45, 11)])
    assert (clothes(found.query), clothes(found.gallery)) == ([1, 12], [2, 1])
    touch(tmp_path / "LTCC_ReID", ["query/005_c3_015833.png"])
    with pytest.raises(InputError, match=r"query/005_c3_015833\.png"):
        load_dataset("ltcc", tmp_path)


@pytest.mark.parametrize(("name", "camera", "worn"), [("prcc", 2, 1), ("prcc-same-clothes", 1, 0)])
def test_prcc(tmp_path: Path, name: str, camera: int, worn: int) -> None:
    home = tmp_path / "prcc" / "rgb" / "test"
    touch(home, [f"{one}/{pid}/cropped_rgb{n:03d}.jpg" for one in "ABC" for pid in ("001", "140")
                 for n in (1, 2)])  # fmt: skip
    touch(tmp_path / "prcc" / "rgb" / "train", ["003/A_cropped_rgb001.jpg"])
    found = load_dataset(name, tmp_path)
    assert labels(found) == ([(pid, camera) for pid in (1, 1, 140, 140)],
                             [(pid, 0) for pid in (1, 1, 140, 140)])  # fmt: skip
    assert (clothes(found.query), clothes(found.gallery)) == ([worn] * 4, [0] * 4)
    assert names(found.query, home)[0] == f"{'ABC'[camera]}/001/cropped_rgb001.jpg"
    touch(home, ["A/someone/cropped_rgb001.jpg"])
    with pytest.raises(InputError, match="A/someone"):
        load_dataset(name, tmp_path)


VEHICLES = [("0000007", 3), ("0000002", 3), ("0000011", 9), ("0000009", 3), ("0000001", 9)]


def make_vehicleid(root: Path) -> Path:
    home = root / "VehicleID_V1.0"
    touch(home, [f"image/{name}.jpg" for name, _ in VEHICLES])
    touch(home, ["train_test_split/test_list_1600.txt"])
    text = "".join(f"{name} {pid}\n" for name, pid in VEHICLES)
    (home / "train_test_split" / "test_list_800.txt").write_text(text + "\n")
    return home


def test_vehicleid(tmp_path: Path) -> None:
    """One image a vehicle in the gallery, by an independent draw; the others as they are listed."""
    home = make_vehicleid(tmp_path)
    drawn = set()
    for split in range(10):
        found = load_dataset("vehicleid-800", tmp_path, split=split)
        smallest = {
            pid: min(
                (name for name, own in VEHICLES if own == pid),
                key=lambda name: hashlib.sha256(f"vehicleid {split} {name}".encode()).digest(),
            )
            for pid in (3, 9)
        }
        rest = [(name, pid) for name, pid in VEHICLES if name not in smallest.values()]
        assert names(found.query, home) == [f"image/{name}.jpg" for name, _ in rest]
        assert {*names(found.gallery, home)} == {f"image/{one}.jpg" for one in smallest.values()}
        assert labels(found)[0] == [(pid, 0) for _, pid in rest]
        assert sorted(labels(found)[1]) == [(3, 1), (9, 1)]
        drawn.add(tuple(smallest.values()))
    assert len(drawn) > 1


@pytest.mark.parametrize("line", ["0000007", "0000007 x", "0000008 3", "../0000007 3"])
def test_vehicleid_lines(tmp_path: Path, line: str) -> None:
    home = make_vehicleid(tmp_path)
    file = home / "train_test_split" / "test_list_800.txt"
    file.write_text(f"0000007 3\n{line}\n")
    with pytest.raises(InputError, match=r"test_list_800\.txt, line 2"):
        load_dataset("vehicleid-800", tmp_path)
    with pytest.raises(InputError, match="split 10"):
        load_dataset("vehicleid-800", tmp_path, split=10)
    with pytest.raises(InputError, match=r"test_list_1600\.txt"):
        load_dataset("vehicleid-1600", tmp_path)


def test_cuhk_sysu(tmp_path: Path) -> None:
    home = tmp_path / "cuhk-sysu" / "cuhksysu4reid"
    touch(home, ["query/00012_s1_0000001_0.jpg", "query/p5533_s15533_1.jpg"])
    touch(home, ["gallery/00012_s2_0000002_1.jpg", "gallery/-1_s2_0000003_0.jpg"])
    touch(home, ["gallery/p5533_s15534_2.jpg", "train/00001_s9_0000004_0.jpg"])
    found = load_dataset("cuhk-sysu", tmp_path)
    assert labels(found) == ([(12, 0), (5533, 0)], [(12, 1), (5533, 1)])
    touch(home, ["query/x.jpg"])
    with pytest.raises(InputError, match=r"query/x\.jpg"):
        load_dataset("cuhk-sysu", home)

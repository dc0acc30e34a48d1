from pathlib import Path

import pytest
from miniature_datasets import camids, make_viper, names, pids, touch

from murank import InputError
from murank import datasets as face
from murank.datasets import DATASETS, load_dataset

MARKET = [
    "query/0002_c1s1_000776_00.jpg",
    "query/0001_c6s3_077419_00.jpg",
    "query/Thumbs.db",
    "query/._0001_c6s3_077419_00.jpg",
    "bounding_box_test/1501_c6s4_001902_01.jpg",
    "bounding_box_test/0001_c2s1_000301_00.JPG",
    "bounding_box_test/0000_c3s2_107153_01.jpg",
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    "bounding_box_test/Thumbs.db",
    "bounding_box_train/0007_c1s6_028546_01.jpg",
]


def test_the_public_face() -> None:
    assert face.__all__ == sorted(face.__all__)
    assert [name for name in face.__all__ if not hasattr(face, name)] == []
    assert list(DATASETS) == [
        "market1501", "dukemtmc", "msmt17", "cuhk03-np", "viper", "grid", "prid", "ilids",
        "occluded-duke", "cuhk-sysu", "ltcc", "prcc", "prcc-same-clothes", "veri776",
        "vehicleid-800", "vehicleid-1600", "vehicleid-2400",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "home",
    [
        "", "Market-1501-v15.09.15", "market1501", "market1501/Market-1501-v15.09.15",
        "Market1501", "market_1501", "Market", "Market-1501-v15.09.15/Market-1501-v15.09.15",
    ],
)  # fmt: skip
def test_market1501(tmp_path: Path, home: str) -> None:
    """Sorted, cameras from 0, junk (-1) left out, distractors (0000) kept."""
    touch(tmp_path / home, MARKET)
    found = load_dataset("market1501", str(tmp_path))
    assert names(found.query, tmp_path / home) == [
        "query/0001_c6s3_077419_00.jpg",
        "query/0002_c1s1_000776_00.jpg",
    ]
    assert pids(found.query) == [1, 2]
    assert camids(found.query) == [5, 0]
    assert names(found.gallery, tmp_path / home) == [
        "bounding_box_test/0000_c3s2_107153_01.jpg",
        "bounding_box_test/0001_c2s1_000301_00.JPG",
        "bounding_box_test/1501_c6s4_001902_01.jpg",
    ]
    assert pids(found.gallery) == [0, 1, 1501]
    assert camids(found.gallery) == [2, 1, 5]


def test_dukemtmc(tmp_path: Path) -> None:
    home = tmp_path / "DukeMTMC-reID"
    touch(home, ["query/0005_c2_f0046985.jpg", "query/0005_c5_f0051781.jpg"])
    touch(home, ["bounding_box_test/7140_c8_f0212345.jpg", "bounding_box_test/0005_c1_f1.jpg"])
    found = load_dataset("dukemtmc", tmp_path)
    assert names(found.query, home)[0] == "query/0005_c2_f0046985.jpg"
    assert (pids(found.query), camids(found.query)) == ([5, 5], [1, 4])
    assert (pids(found.gallery), camids(found.gallery)) == ([5, 7140], [0, 7])


def test_cuhk03_np(tmp_path: Path) -> None:
    for boxes, pid in (("detected", 3), ("labeled", 4)):
        home = tmp_path / "CUHK03-NP" / boxes
        touch(home, [f"query/{pid:04d}_c1_00_x.png", f"bounding_box_test/{pid:04d}_c2_01_x.png"])
    assert pids(load_dataset("cuhk03-np", tmp_path).query) == [3]
    for root in (tmp_path, tmp_path / "CUHK03-NP"):
        found = load_dataset("cuhk03-np", root, boxes="labeled")
        assert names(found.query, tmp_path) == ["CUHK03-NP/labeled/query/0004_c1_00_x.png"]
        assert (pids(found.gallery), camids(found.gallery)) == ([4], [1])
    with pytest.raises(InputError, match="boxes must be one of detected, labeled, got 'drawn'"):
        load_dataset("cuhk03-np", tmp_path, boxes="drawn")


MSMT17 = {
    "list_query.txt": ["0001/0001_000_15_0303noon_0022_1.jpg 1"],
    "list_gallery.txt": [
        "0001/0001_002_05_0303morning_0031_0.jpg 1",
        "0000/0000_000_01_0303morning_0015_0.jpg 0",
    ],
}


def make_msmt17(home: Path, folder: str) -> None:
    for name, lines in MSMT17.items():
        touch(home / folder, [line.split()[0] for line in lines])
        (home / name).write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("home", "folder"),
    [("", "test"), ("MSMT17_V1", "test"), ("MSMT17_V2", "mask_test_v2")],
)
def test_msmt17(tmp_path: Path, home: str, folder: str) -> None:
    """In the order of the lists; the third field of the name is the camera."""
    make_msmt17(tmp_path / home, folder)
    found = load_dataset("msmt17", tmp_path)
    top = tmp_path / home / folder
    assert names(found.query, top) == ["0001/0001_000_15_0303noon_0022_1.jpg"]
    assert (pids(found.query), camids(found.query)) == ([1], [14])
    assert names(found.gallery, top) == [
        "0001/0001_002_05_0303morning_0031_0.jpg",
        "0000/0000_000_01_0303morning_0015_0.jpg",
    ]
    assert (pids(found.gallery), camids(found.gallery)) == ([1, 0], [4, 0])


def test_msmt17_prefers_the_first_release(tmp_path: Path) -> None:
    make_msmt17(tmp_path / "MSMT17_V1", "test")
    make_msmt17(tmp_path / "MSMT17_V2", "mask_test_v2")
    assert "MSMT17_V1" in str(load_dataset("msmt17", tmp_path).query.paths[0])
    assert "MSMT17_V2" in str(load_dataset("msmt17", tmp_path / "MSMT17_V2").query.paths[0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0001/0001_000_15_0303noon_0022_1.jpg", r"list_query\.txt"),
        ("0001/0001_000_00_0303noon_0022_1.jpg 1", "line 2: should be like"),
        ("../0001_000_15_0303noon_0022_1.jpg 1", "line 2: should be like"),
        ("0001/0001_009_15_0303noon_0022_1.jpg 1", r"line 2: .*0001_009_15\S+ is missing"),
    ],
)
def test_msmt17_lines_that_cannot_be_used(tmp_path: Path, line: str, message: str) -> None:
    make_msmt17(tmp_path, "test")
    file = tmp_path / "list_query.txt"
    file.write_text(f"{MSMT17['list_query.txt'][0]}\r\n{line}\r\n")
    with pytest.raises(InputError, match=message):
        load_dataset("msmt17", tmp_path)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not a text file"):
        load_dataset("msmt17", tmp_path)


def test_msmt17_without_images(tmp_path: Path) -> None:
    for name in ("list_query.txt", "list_gallery.txt"):
        (tmp_path / name).write_text("\n")
    with pytest.raises(InputError, match="lacks test or mask_test_v2"):
        load_dataset("msmt17", tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="has no query image"):
        load_dataset("msmt17", tmp_path)


@pytest.mark.parametrize(
    ("name", "sought"),
    [
        ("market1501", "query and bounding_box_test not found.*0001_c1s1_001051_00.jpg"),
        ("dukemtmc", "query and bounding_box_test not found.*0001_c2_f0046182.jpg"),
        ("msmt17", "list_query.txt and list_gallery.txt not found.*mask_test_v2"),
        ("cuhk03-np", "detected/query and detected/bounding_box_test not found.*CUHK03-NP"),
        ("viper", "cam_a and cam_b not found.*000_45.bmp"),
        ("grid", "probe and gallery not found.*underground_reid"),
        ("prid", "cam_a and cam_b not found.*person_0001.png"),
        ("ilids", "Persons not found.*0001001.jpg"),
        ("occluded-duke", "query and bounding_box_test not found.*0005_c2_f0046985.jpg"),
        ("cuhk-sysu", "query and gallery not found.*00001_s1_0000012_0.jpg"),
        ("ltcc", "query and test not found.*000_1_c3_015833.png"),
        ("prcc", "rgb/test/A and rgb/test/C not found.*rgb/test"),
        ("veri776", "image_query and image_test not found.*0002_c002_00030600_0.jpg"),
        ("vehicleid-800", "image and train_test_split/test_list_800.txt not found.*0000001.jpg"),
    ],
)
def test_empty_and_missing_roots(tmp_path: Path, name: str, sought: str) -> None:
    """The message says what was looked for, where, and how it should look."""
    with pytest.raises(InputError, match=sought) as caught:
        load_dataset(name, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert ", neither there nor in " in str(caught.value)
    assert f"should hold {DATASETS[name].layout}" in str(caught.value)
    with pytest.raises(InputError, match="no such folder; it should hold"):
        load_dataset(name, tmp_path / "none")


def test_half_a_data_set(tmp_path: Path) -> None:
    touch(tmp_path / "market1501", ["query/0001_c1s1_001051_00.jpg"])
    with pytest.raises(InputError, match=r"market1501 lacks bounding_box_test; .* should hold"):
        load_dataset("market1501", tmp_path)
    (tmp_path / "market1501" / "bounding_box_test").mkdir()
    with pytest.raises(InputError, match="has no gallery image"):
        load_dataset("market1501", tmp_path)


@pytest.mark.parametrize(
    "name", ["holiday.jpg", "0001_c0s1_1_00.jpg", "-2_c1s1_1.jpg", "a1_c1.jpg"]
)
def test_names_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    touch(tmp_path, [*MARKET, f"query/{name}"])
    with pytest.raises(InputError, match=f"query/{name}: the name should begin with person"):
        load_dataset("market1501", tmp_path)


def test_a_link_that_leads_nowhere_is_for_the_decoder_to_tell(tmp_path: Path) -> None:
    touch(tmp_path, MARKET)
    link = tmp_path / "query" / "0003_c1s1_000001_00.jpg"
    link.symlink_to("nowhere.jpg")
    assert link in load_dataset("market1501", tmp_path).query.paths


def test_what_does_not_apply(tmp_path: Path) -> None:
    touch(tmp_path, MARKET)
    with pytest.raises(InputError, match=r"'market'; there are market1501, dukemtmc"):
        load_dataset("market", tmp_path)
    with pytest.raises(InputError, match="market1501 has no choice of split; 1 does not apply"):
        load_dataset("market1501", tmp_path, split=1)
    with pytest.raises(InputError, match="viper has no choice of boxes"):
        load_dataset("viper", make_viper(tmp_path), boxes="labeled")


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, ["query", "bounding_box_test"])
    with pytest.raises(InputError, match="/query: Not a directory"):
        load_dataset("market1501", tmp_path)

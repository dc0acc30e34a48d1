"""benchmarks/photographs.py: which photographs it reads, how it splits them, what it refuses."""

import csv
from pathlib import Path

import photographs
import pytest
from miniature_datasets import names, touch
from photos.protocols import PROTOCOLS, SETS
from photos.sets import as_csv, first_of_each_camera, joined, read_all, read_tests, read_training

from murank import InputError
from murank.datasets import ImageList, list_images

FLAT = {
    "cuhk01": (["0001001.png", "0001002.png", "0001003.png", "0971004.png"],
               [(1, 0), (1, 0), (1, 1), (971, 1)]),
    "cuhk03": (["0000_00.jpg", "0000_04.jpg", "0000_05.jpg", "1466_09.jpg"],
               [(0, 0), (0, 0), (0, 1), (1466, 1)]),
    "pku-reid": (["train/009/01_0.png", "train/009/02_2.png", "val/all_imgs/100/01_7.png"],
                 [(9, 1), (9, 2), (100, 1)]),
}  # fmt: skip


def labels(images: ImageList) -> list[tuple[int, int]]:
    assert images.pids is not None
    assert images.camids is not None
    return list(zip(images.pids.tolist(), images.camids.tolist(), strict=True))


@pytest.mark.parametrize("name", FLAT)
def test_names_of_sets_without_sides(name: str, tmp_path: Path) -> None:
    files, expected = FLAT[name]
    touch(tmp_path, files)
    found = read_all(name, tmp_path)
    assert names(found, tmp_path) == files
    assert labels(found) == expected


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("file", ["0001_c1s1_000151_01.jpg", "a.png", "00010011.png"])
def test_a_name_of_another_set_is_named(name: str, file: str, tmp_path: Path) -> None:
    touch(tmp_path, [*FLAT[name][0], file])
    with pytest.raises(InputError, match=file):
        read_all(name, tmp_path)


@pytest.mark.parametrize("name", [*FLAT, "mine"])
def test_a_folder_that_is_not_there_or_empty(name: str, tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=str(root)):
            read_tests(name, root)


def test_a_set_of_ones_own_in_market_names_or_a_list(tmp_path: Path) -> None:
    touch(tmp_path / "d", ["7/0007_c1_1.jpg", "7/0007_c1_2.jpg", "7/0007_c2_1.jpg"])
    touch(tmp_path / "d", ["8/0008_c2_1.jpg", "7/0007_c2_2.jpg"])
    (tmp_path / "l.csv").write_text(as_csv(read_all("mine", tmp_path / "d")))
    for root in (tmp_path / "d", tmp_path / "l.csv"):
        (test,) = read_tests("mine", root)
        assert names(test.data.query, tmp_path / "d") == ["7/0007_c1_1.jpg", "7/0007_c2_1.jpg"]
        assert names(test.data.gallery, tmp_path / "d") == ["7/0007_c1_2.jpg", "7/0007_c2_2.jpg"]


def test_a_set_of_ones_own_without_labels_lists_the_known_names(tmp_path: Path) -> None:
    touch(tmp_path, ["a.jpg"])
    with pytest.raises(InputError, match="cuhk03"):
        read_tests("markt1501", tmp_path)


def test_first_of_each_camera_is_a_query_if_another_camera_matches(tmp_path: Path) -> None:
    touch(tmp_path, ["0001_c1_1.jpg", "0001_c1_2.jpg", "0001_c2_1.jpg", "0001_c3_1.jpg"])
    touch(tmp_path, ["0002_c1_1.jpg", "0002_c1_2.jpg", "0003_c1_1.jpg"])
    found = first_of_each_camera(list_images(tmp_path), tmp_path)
    # Of person 1, camera 1 alone has an image left: it matches the queries of the other two.
    assert names(found.query, tmp_path) == ["0001_c2_1.jpg", "0001_c3_1.jpg"]
    assert names(found.gallery, tmp_path) == ["0001_c1_2.jpg", "0002_c1_2.jpg"]


def test_nothing_to_find(tmp_path: Path) -> None:
    touch(tmp_path, ["0001_c1_1.jpg", "0001_c1_2.jpg"])
    with pytest.raises(InputError, match="no query"):
        read_tests("mine", tmp_path)


def test_published_sets_are_read_as_published(tmp_path: Path) -> None:
    touch(tmp_path, ["query/0001_c1s1_1_00.jpg", "bounding_box_test/0001_c2s1_1_00.jpg"])
    touch(tmp_path, ["bounding_box_test/-1_c2s1_1_00.jpg", "bounding_box_train/0002_c6s1_1_00.jpg"])
    (test,) = read_tests("market1501", tmp_path)
    assert names(test.data.gallery, tmp_path) == ["bounding_box_test/0001_c2s1_1_00.jpg"]
    assert labels(read_training("market1501", tmp_path)) == [(2, 5)]


def test_small_sets_have_ten_halves_of_one_name(tmp_path: Path) -> None:
    touch(tmp_path, [f"cam_{one}/{pid:03d}_0.bmp" for one in "ab" for pid in range(6)])
    tests = read_tests("viper", tmp_path)
    assert [test.folder for test in tests] == [f"viper-{split}" for split in range(10)]
    assert {test.name for test in tests} == {"viper"}
    assert len({tuple(test.data.query.paths) for test in tests}) > 1
    with pytest.raises(InputError, match="viper"):
        read_training("viper", tmp_path)


def test_training_images_of_msmt17(tmp_path: Path) -> None:
    lines = {"train": "0000/0000_000_01_0303morning_0015_0.jpg 0",
             "val": "0000/0000_001_15_0303morning_0016_0.jpg 0"}  # fmt: skip
    for part, line in lines.items():
        (tmp_path / f"list_{part}.txt").write_text(line + "\n")
        touch(tmp_path / "train", [line.split()[0]])
    assert labels(read_training("msmt17", tmp_path)) == [(0, 0), (0, 14)]


def test_joined_sets_share_nobody_and_no_camera(tmp_path: Path) -> None:
    touch(tmp_path / "a", ["0001_c1_1.jpg", "0005_c2_1.jpg"])
    touch(tmp_path / "b", ["0001_c1_1.jpg", "0001_c9_1.jpg"])
    lists = [list_images(tmp_path / name) for name in "ab"]
    found = joined(lists)
    assert found.paths == lists[0].paths + lists[1].paths
    assert labels(found) == [(0, 0), (1, 1), (2, 2), (2, 3)]


def test_lists_keep_odd_paths(tmp_path: Path) -> None:
    touch(tmp_path / 'a,"b"', ["0001_c1_1.jpg"])
    text = as_csv(list_images(tmp_path))
    path = next(csv.DictReader(text.splitlines()))["path"]
    assert path == str(tmp_path / 'a,"b"' / "0001_c1_1.jpg")


def test_protocols_train_on_others_than_they_test_on() -> None:
    assert PROTOCOLS["M->MS"].train == ("market1501",)
    assert PROTOCOLS["D+MS+C3->M"].test == ("market1501",)
    assert PROTOCOLS["M+CS+MS+C3->small"].test == ("prid", "grid", "viper", "ilids")
    assert len(PROTOCOLS) == 6 + 4 + 3 + 2  # single source, leave one out twice, small twice
    for protocol in PROTOCOLS.values():
        assert set(protocol.sets) <= set(SETS.values())
        assert not set(protocol.train) & set(protocol.test)


ENCODER = ["--encoder", "e.onnx", "-o", "out"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "--test"),
        (["--protocol", "M->MS", "--sets", "market1501:m"], "msmt17:ROOT"),
        (["--protocol", "M->MS"], "market1501:ROOT"),
        (["--protocol", "M->MS", "--test", "msmt17:m"], "--sets"),
        (["--protocol", "M->X"], "--protocol"),
        (["--sets", "market1501:m"], "--test"),
        (["--test", "market1501"], "NAME:ROOT"),
        (["--test", ":m"], "NAME:ROOT"),
        (["--test", "../a:m"], "NAME:ROOT"),
        (["--test", "a:m", "a:n"], "--test"),
        (["--test", "a:m", "--train", "b:n"], "--mllm"),
        (["--test", "a:m", "--mllm", "b"], "--train"),
        (["--test", "cuhk03:nowhere"], "cuhk03:nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    given: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        photographs.main([*ENCODER, *given])
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

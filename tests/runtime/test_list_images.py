import os
from pathlib import Path

import numpy as np
import pytest
from miniature_datasets import camids, names, pids, touch

from murank import InputError
from murank.datasets import list_images
from murank.datasets.named_ids import number_of
from murank.datasets.shared_files import note_of_shared
from murank.images import load_image
from murank.jobs import Images


def test_folder(tmp_path: Path) -> None:
    """Every depth, sorted by the parts of the path; what is hidden or no image is passed over."""
    touch(
        tmp_path,
        [
            "b/2.png", "b/1.JPEG", "b.jpg", "b-c/3.bmp", "a.webp", "z.ppm", "z.pgm",
            "b/deep/er/0.jpg", "notes.txt", "scan.tif", "Thumbs.db", "jpg",
            ".hidden.jpg", ".git/x.jpg", "b/._1.jpeg",
        ],
    )  # fmt: skip
    found = list_images(str(tmp_path))
    assert names(found, tmp_path) == [
        "a.webp", "b/1.JPEG", "b/2.png", "b/deep/er/0.jpg", "b-c/3.bmp", "b.jpg", "z.pgm", "z.ppm",
    ]  # fmt: skip
    assert found.paths == tuple(sorted(found.paths))
    assert found.pids is None
    assert found.camids is None


def test_folder_with_names_of_the_market_kind(tmp_path: Path) -> None:
    touch(tmp_path, ["b/0002_c1s1_000776_00.jpg", "a/-1_c6.jpg", "0000_c12_x.png"])
    found = list_images(tmp_path)
    assert names(found, tmp_path) == ["0000_c12_x.png", "a/-1_c6.jpg", "b/0002_c1s1_000776_00.jpg"]
    assert pids(found) == [0, -1, 2]
    assert camids(found) == [11, 5, 0]


@pytest.mark.parametrize("name", ["12_cat.jpg", "0001_c0.jpg", f"{9**19}_c1.jpg", "x_0001_c1.jpg"])
def test_one_other_name_and_the_folder_has_no_labels(tmp_path: Path, name: str) -> None:
    touch(tmp_path, ["0002_c1s1_000776_00.jpg", name])
    found = list_images(tmp_path)
    assert len(found.paths) == 2
    assert found.pids is None
    assert found.camids is None


def test_links_in_a_folder(tmp_path: Path) -> None:
    """A folder is listed once, and a link that leads back up ends."""
    touch(tmp_path, ["set/a/1.jpg", "set/b/2.jpg", "far/3.jpg"])
    for link, target in [
        ("a/up", ".."),
        ("a/self", "self"),
        ("far", "../far"),
        ("copy", "b"),
        ("a/out", "../../far"),
    ]:
        (tmp_path / "set" / link).symlink_to(target)
    (tmp_path / "set" / "5.jpg").symlink_to("a/1.jpg")
    assert names(list_images(tmp_path / "set"), tmp_path / "set") == [
        "5.jpg", "a/1.jpg", "a/out/3.jpg", "b/2.jpg",
    ]  # fmt: skip
    (tmp_path / "entry").symlink_to("set")
    assert len(list_images(tmp_path / "entry").paths) == 4


@pytest.mark.parametrize("kind", ["link", "loop", "pipe"])
def test_what_cannot_be_opened_is_for_the_decoder_to_tell(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "1.jpg"
    if kind == "pipe":
        os.mkfifo(image)
    else:
        image.symlink_to("nowhere" if kind == "link" else "1.jpg")
    assert list_images(tmp_path).paths == (image,)
    with pytest.raises(InputError, match=r"1\.jpg"):
        load_image(image)


def test_sources_that_list_nothing(tmp_path: Path) -> None:
    touch(tmp_path, ["notes.txt"])
    with pytest.raises(InputError, match=r"holds no image \(.bmp, "):
        list_images(tmp_path)
    with pytest.raises(InputError, match="none: no such file or folder"):
        list_images(tmp_path / "none")
    with pytest.raises(InputError, match=r"none.csv: no such file or folder"):
        list_images(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"neither a folder of images nor a list"):
        list_images(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"neither a folder of images nor a list"):
        list_images(tmp_path / "pipe.csv")


def saved(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "list.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_csv(tmp_path: Path) -> None:
    """Rows in order; byte order mark, quotes, blank lines and any order of columns are fine."""
    text = '\ufeffcamid,path,pid\r\n3,b.jpg,-1\r\n\r\n 0 ,"a, ""x"".jpg",+7\r\n5,/far/é.png,007\r\n'
    found = list_images(saved(tmp_path, text))
    assert found.paths == (tmp_path / "b.jpg", tmp_path / 'a, "x".jpg', Path("/far/é.png"))
    assert pids(found) == [-1, 7, 7]
    assert camids(found) == [3, 0, 5]


TABLE = [("a.jpg", 1, 2), ("b/c d.jpg", -1, 30)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
def test_csv_as_spreadsheets_write_it(
    tmp_path: Path, delimiter: str, end: str, encoding: str
) -> None:
    """Cells padded and quoted, a column for the eye, rows without text at the end."""
    rows = [["no", " path", "pid ", "camid", ""]]
    rows += [[str(n), f'"{path}"', f" {pid} ", f"{cam}.0", ""]
             for n, (path, pid, cam) in enumerate(TABLE)]  # fmt: skip
    rows += [["", "  ", "", "", ""], []]
    text = "".join(delimiter.join(row) + end for row in rows)
    raw = b"\xff\xfe" + text.encode("utf-16-le") if "bom" in encoding else text.encode(encoding)
    found = list_images(saved(tmp_path, raw))
    assert names(found, tmp_path) == [path for path, _, _ in TABLE]
    assert pids(found) == [pid for _, pid, _ in TABLE]
    assert camids(found) == [cam for _, _, cam in TABLE]
    (note,) = found.notes
    assert note.endswith("passed over: no")


@pytest.mark.parametrize(
    ("path", "pid", "camid", "clothes"),
    [
        ("img_path", "person_id", "cam", "cloth_id"),
        ("image_path", "label", "camera_id", "clothes_id"),
        ("filename", "PID", "CamID", "Clothes"),
        ("file", "identity", "camera", "clothing"),
        ("ImagePath", "personID", "cameraId", "clothesID"),
    ],
)
def test_csv_columns_by_other_names(
    tmp_path: Path, path: str, pid: str, camid: str, clothes: str
) -> None:
    text = f"{camid},{path},{clothes},{pid},split\n3,a.jpg,,1,test\n4,b.jpg,8,2,test\n"
    found = list_images(saved(tmp_path, text))
    assert names(found, tmp_path) == ["a.jpg", "b.jpg"]
    assert (pids(found), camids(found)) == ([1, 2], [3, 4])
    assert found.clothes is not None
    assert found.clothes.tolist() == [-1, 8]
    taken, others = found.notes
    assert f"{path} as path" in taken
    assert others.endswith("passed over: split")


def test_csv_says_what_separates(tmp_path: Path) -> None:
    found = list_images(saved(tmp_path, "sep=;\r\npath;pid\r\na,b.jpg;1\r\n"))
    assert (names(found, tmp_path), pids(found)) == (["a,b.jpg"], [1])
    with pytest.raises(InputError, match="line 3"):
        list_images(saved(tmp_path, "sep=;\npath;pid\na,b.jpg\n"))


def test_our_names_of_columns_come_first(tmp_path: Path) -> None:
    found = list_images(saved(tmp_path, "filename,path,label,pid\nx,a.jpg,9,1\n"))
    assert (names(found, tmp_path), pids(found)) == (["a.jpg"], [1])
    (note,) = found.notes
    assert note.endswith("passed over: filename, label")


def test_csv_with_names_as_ids(tmp_path: Path) -> None:
    """A name has the same number in every list and column; 007 and 7.0 are 7."""
    people = ["ann", "bob", "ann", "007", "7.0", str(9**20), "1_0"]
    text = "".join(f"{n}.jpg,{one},c{n % 2}\n" for n, one in enumerate(people))
    found = list_images(saved(tmp_path, f"path,pid,cam\n{text}"))
    other = list_images(saved(tmp_path, "path,pid\nz.jpg,ann\n"))
    assert found.pids is not None
    assert found.camids is not None
    numbers = found.pids.tolist()
    assert numbers[0] == numbers[2] == pids(other)[0] != numbers[1]
    assert numbers[3:5] == [7, 7]
    assert len(set(numbers)) == 5
    assert found.camids.tolist() == [number_of(f"c{n % 2}") for n in range(7)]
    assert found.id_names == tuple(sorted({"ann", "bob", str(9**20), "1_0", "c0", "c1"}))
    assert "6 ids are names" in found.notes[-1]
    both = Images.of(found, other)
    assert both.with_features(np.ones((8, 1))).id_names == found.id_names


def test_csv_with_clothes(tmp_path: Path) -> None:
    found = list_images(saved(tmp_path, "path,clothes,pid,camid\na.jpg,12,1,2\nb.jpg,-1,1,3\n"))
    assert found.clothes is not None
    assert found.clothes.tolist() == [12, -1]
    assert found.unlabelled is None
    images = Images.of(found, found).kept(np.array([True, False, True, True]))
    assert images.clothes is not None
    assert images.clothes.tolist() == [12, 12, -1]
    assert images.with_features(np.ones((3, 1))).clothes is images.clothes


@pytest.mark.parametrize("column", ["pid", "camid"])
def test_csv_with_fewer_columns(tmp_path: Path, column: str) -> None:
    found = list_images(saved(tmp_path, f"path,{column}\na.jpg,4"))
    labels = {"pid": found.pids, "camid": found.camids}
    known = labels.pop(column)
    assert known is not None
    assert known.tolist() == [4]
    assert [*labels.values()] == [None]
    assert list_images(saved(tmp_path, "path\n0001_c1.jpg\n")).pids is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a.jpg,1,2\n", "the first line should name the columns.* it is 'a.jpg,1,2'"),
        ("path,pid,pid\na.jpg,1,2\n", "pid and pid may be the pid"),
        ("img_path,filename\na.jpg,b.jpg\n", "img_path and filename may be the path"),
        ("id,name\n1,a.jpg\n", "it is 'id,name'"),
        ("pid\n1\n", "it is 'pid'"),
        ("path,pid\n", "lists no image"),
        ("path,pid\na.jpg,1\n,2\n", "line 3: the path is empty"),
        ("path,pid\n  ,2\n", "line 2: the path is empty"),
        ("path,pid\n\na.jpg\n", "line 3: 1 fields, but there are 2 columns"),
        ("path,pid\na.jpg,1,2\n", "line 2: 3 fields"),
        ("path,pid\na.jpg,\n", "line 2: pid is empty"),
        ("path,pid\na.jpg,1\nb.jpg,NaN\n", "line 3: pid is NaN"),
        ("path,clothes,camid\na.jpg,3, \n", "line 2: camid is empty"),
        ("path\na.jpg\nb.jpg\na.jpg\n", "line 4: a.jpg is already in line 2"),
        ("path\nx/a.jpg\nx/../x//a.jpg\n", "line 3: .* is already in line 2"),
        ('path\n"a.jpg', "line 2: unexpected end of data"),
        ('path\n"a"b.jpg\n', "line 2: .*expected"),
        (f"path\n{'a' * 200_000}\n", "line 2: field larger"),
        ("path\na\0.jpg\n", "line 2: "),
        (b"path\na.jpg\n\xe9.jpg\n", "line 3.* UTF-8"),
        ("path\na.jpg\nhttps://x/a.jpg\n", "line 3.* URL"),
        ("path\ns3://x/a.jpg\n", "line 2.* URL"),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, text: str | bytes, message: str) -> None:
    file = saved(tmp_path, text)
    with pytest.raises(InputError, match=f"list.csv.*{message}"):
        list_images(file)


def test_files_passed_over_are_counted(tmp_path: Path) -> None:
    for name in ("0001_c1.jpg", "0002_c1.JFIF", "0003_c1.jpe", "a.txt", "b.TXT", "c.gif", "d"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    found = list_images(tmp_path)
    assert [path.name for path in found.paths] == ["0001_c1.jpg", "0002_c1.JFIF", "0003_c1.jpe"]
    assert found.pids is not None
    (note,) = found.notes
    assert "4 files" in note
    for part in (".txt 2", ".gif 1", "none 1", str(tmp_path)):
        assert part in note


def test_the_file_that_costs_the_labels_is_named(tmp_path: Path) -> None:
    for name in ("0001_c1.jpg", "0002_c1.jpg", "portrait.jpg"):
        (tmp_path / name).write_bytes(b"")
    found = list_images(tmp_path)
    assert found.pids is None
    (note,) = found.notes
    assert "portrait.jpg" in note
    for file in tmp_path.glob("0*"):
        file.unlink()
    assert list_images(tmp_path).notes == ()  # nobody meant labels


def test_queries_in_the_gallery_are_counted(tmp_path: Path) -> None:
    """The same path, another link to the file, a copy of it; not one of the same size."""
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"three"), ("d", b"six")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").hardlink_to(tmp_path / "b")
    (tmp_path / "copy").write_bytes(b"three")
    (tmp_path / "other").write_bytes(b"ten")
    gallery = [tmp_path / name for name in ("a", "link", "copy", "other", "missing")]
    queries = [tmp_path / name for name in ("a", "b", "c", "d", "missing")]
    (note,) = note_of_shared(queries, gallery)
    assert note.startswith("3 of 5 queries are in the gallery")
    assert note_of_shared(queries[3:], gallery) == ()

"""Lists and features in Parquet, written by pyarrow and by hand."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_names import HOSTILE
from made_features import make_features
from refusal import Refuse
from wide_engine import ENGINE

from murank import InputError, MachineError, load_features
from murank.cli import main
from murank.cli.output import gathered_notes, notes
from murank.datasets import list_images, load_dataset
from murank.datasets.named_ids import number_of

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")


def saved(folder: Path, name: str = "list.parquet", **columns: Any) -> Path:
    file = folder / name
    with file.open("wb") as stream:  # a name need not be UTF-8
        pq.write_table(pa.table(columns), stream, row_group_size=3)
    return file


COLUMN = HOSTILE.replace("\udcff", "")  # names of columns are UTF-8
PATHS = ["b.jpg", "a.jpg", "/far/é.png", 'x, "y".jpg', "deep/../c.jpg"]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_a_list(tmp_path: Path, kind: str) -> None:
    """Rows in order, whatever the type of text and integers; others are named."""
    text = pa.array(PATHS, pa.large_string() if kind == "large_string" else pa.string())
    if kind == "dictionary":
        text = text.dictionary_encode()
    pids, camids = pa.array([7, -1, 0, 2, 2], pa.int16()), pa.array([3, 0, 5, 1, 1], pa.uint64())
    columns: dict[str, Any] = {COLUMN: [1] * 5}
    file = saved(tmp_path, score=[0.5] * 5, path=text, camid=camids, pid=pids, **columns)
    found = list_images(file)
    assert found.paths == tuple(tmp_path / path for path in PATHS)
    assert found.pids is not None
    assert found.camids is not None
    assert found.pids.dtype == np.dtype(np.int64)
    assert found.pids.tolist() == [7, -1, 0, 2, 2]
    assert found.camids.tolist() == [3, 0, 5, 1, 1]
    (note,) = found.notes
    assert "score" in note
    assert COLUMN in note


def test_clothes_of_a_list_and_of_features(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"path": ["query/a", "b"], "clothes": [3, -1]}
    (listed, made) = (
        list_images(saved(tmp_path, **columns)),
        load_features(saved(tmp_path, feature=[[1.0], [0.5]], **columns)),
    )
    for found in (listed.clothes, made.clothes):
        assert found is not None
        assert found.tolist() == [3, -1]


def test_names_of_columns_and_of_people(tmp_path: Path) -> None:
    """Of a list and of features, as of a .csv; text is the number it stands for."""
    columns: dict[str, Any] = {
        "image_path": ["query/a", "b", "c"], "person_id": ["ann", "007", "ann"],
        "Camera": [3, 4, 4],
        "note": ["", "", ""],
    }  # fmt: skip
    listed = list_images(saved(tmp_path, **columns))
    made = load_features(saved(tmp_path, feature=[[1.0], [0.5], [0.2]], **columns))
    assert made.paths.tolist() == ["query/a", "b", "c"]
    assert [path.name for path in listed.paths] == ["a", "b", "c"]
    for found in (listed, made):
        assert found.pids is not None
        assert found.camids is not None
        assert found.pids.tolist() == [number_of("ann"), 7, number_of("ann")]
        assert found.camids.tolist() == [3, 4, 4]
        assert found.id_names == ("ann",)
    assert [note.split(": ", 1)[1][:4] for note in listed.notes] == ["took", "colu", "1 id"]


def test_a_list_by_its_first_bytes(tmp_path: Path) -> None:
    found = list_images(saved(tmp_path, "rows", path=PATHS))
    assert len(found.paths) == 5
    assert found.notes == ()
    assert found.pids is found.camids is None
    assert found.unlabelled is not None
    assert "pid" in found.unlabelled
    folder = tmp_path / HOSTILE
    folder.mkdir()
    assert list_images(saved(folder, path=["a"])).paths == (folder / "a",)


def test_one_file_by_two_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    saved(tmp_path, path=["b", str(tmp_path / "b")])
    with pytest.raises(InputError, match=r"row 1.*row 0"):
        list_images(tmp_path / "a" / ".." / "list.parquet")


BINARY = pa.array([b"a.jpg", b"\xff.jpg"])
NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2, BINARY.buffers())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a", "b", "c", None]}, "row 3.*null"),
        ({"path": ["a", "b", "c", " "]}, "row 3"),
        ({"path": ["a", "b", "c", "d\0"]}, "row 3"),
        ({"path": ["a", "b", "c", "a"]}, "row 3.*row 0"),
        ({"path": ["a", "b", "c", "x/../b"]}, "row 3.*row 1"),
        ({"path": ["a", "https://x/y.jpg"]}, "row 1.*URL"),
        ({"path": ["a", "s3://x/y.jpg"]}, "row 1.*URL"),
        ({"path": ["a", "file:/x/y.jpg"]}, "row 1.*URL"),
        ({"path": NOT_UTF8}, "row 1.*UTF-8"),
        ({"path": BINARY}, "path should hold text.*binary"),
        ({"path": [1, 2]}, "path should hold text.*int64"),
        ({"path": [["a"], ["b"]]}, "path should hold text.*list"),
        ({"title": ["a"]}, "no column path.*title"),
        ({"file": ["a"], "img_path": ["a"]}, "file and img_path"),
        ({"path": pa.array([], pa.string())}, "lists no image"),
        ({"path": ["a", "b", "c", "d"], "pid": [1, 2, 3, None]}, "row 3: pid is null"),
        ({"path": ["a"], "pid": [1.0]}, "pid should hold integers.*double"),
        ({"path": ["a"], "camid": [b"1"]}, "camid should hold integers.*binary"),
        ({"path": ["a", "b"], "camid": ["1", None]}, "row 1: camid is null"),
        ({"path": ["a", "b"], "pid": pa.array([1, 2**63], pa.uint64())}, "row 1: pid"),
        ({"path": ["a"], "pid": [True]}, "pid should hold integers.*bool"),
        ({"path": ["a", "b"], "pid": ["ann", "<NA>"]}, "pid: row 1"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"list\.parquet.*{message}"):
        list_images(saved(tmp_path, **columns))


def test_files_that_are_no_table(tmp_path: Path) -> None:
    whole = saved(tmp_path, path=[f"{i}.jpg" for i in range(100)]).read_bytes()
    twice = pa.Table.from_arrays([pa.array(["a"])] * 2, names=["path", "path"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    broken = bytearray(whole)
    broken[40:60] = bytes(20)
    for name, data in (
        ("empty.parquet", b""), ("text.PARQUET", b"path\na.jpg\n"), ("short.pq", b"PAR1PAR1"),
        ("cut.parquet", whole[:-30]), ("tail.parquet", whole[:4] + whole[-8:]),
        ("secret.parquet", b"PARE" + whole[4:]), ("broken.parquet", bytes(broken)),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            list_images(tmp_path / name)
    with pytest.raises(InputError, match=r"twice\.parquet.*path"):
        list_images(tmp_path / "twice.parquet")


@pytest.mark.parametrize("source", ["https://a/b.parquet", "S3://a/b", "file:///a/b", "gs://a"])
def test_urls_are_refused(tmp_path: Path, refuse: Refuse, source: str) -> None:
    refuse("rerank", source, "--method", "none", names="URL")
    refuse("evaluate", source, names="URL")
    with pytest.raises(InputError, match="URL"):
        load_dataset("market1501", source)
    features = np.eye(2, dtype=np.float32)
    np.savez(tmp_path / "f.npz", features=features, paths=np.array(["a", source]), num_query=1)
    said = refuse("rerank", tmp_path / "f.npz", "--method", "none", "--sheet", tmp_path / "s.png",
                  names="f.npz, row 1")  # fmt: skip
    assert "URL" in said
    (tmp_path / "i.csv").write_text(f"path,camera,time\n{source},1,0\n")
    for items in (["--items", tmp_path / "i.csv"], [source, "--camera", 1, "--time", 0]):
        assert "URL" in refuse("gallery", "add", ENGINE, tmp_path / "g.db", *items, names=source)
    for read in (list_images, load_features):
        with pytest.raises(InputError, match="URL"):
            read(source)


@pytest.mark.parametrize("kind", ["fixed", "list", "large_list"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features(tmp_path: Path, kind: str, dtype: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(dtype)
    value = pa.from_numpy_dtype(np.dtype(dtype))
    types = {
        "fixed": pa.list_(value, 3),
        "list": pa.list_(value),
        "large_list": pa.large_list(value),
    }
    names = [f"query/{i}" for i in range(2)] + [f"gallery/{i}" for i in range(6)]
    file = saved(
        tmp_path, path=names, feature=pa.array(list(rows), types[kind]), pid=list(range(8)),
        camid=pa.array([0, 1] * 4, pa.int8()), time=[0.0] * 8,
    )  # fmt: skip
    with gathered_notes():
        found = load_features(file)
        assert [note for note in notes() if "time" in note]
    assert found.features.dtype == dtype
    np.testing.assert_array_equal(found.features, rows)
    assert found.paths.tolist() == names
    assert found.num_query == 2
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels.g_camids, [0, 1] * 3)


def test_where_the_gallery_begins_is_told_as_in_an_npz(tmp_path: Path) -> None:
    table = pa.table({"features": [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]})
    file = tmp_path / "f.parquet"
    pq.write_table(table.replace_schema_metadata({"num_query": "2"}), file)
    assert load_features(file).num_query == 2
    assert load_features(file, 1).num_query == 1
    assert not load_features(file).has_paths
    for text, message in (("x", "num_query"), ("3", "num_query is 3"), ("9" * 30, "num_query")):
        pq.write_table(table.replace_schema_metadata({"num_query": text}), file)
        with pytest.raises(InputError, match=message):
            load_features(file)
    pq.write_table(table.replace_schema_metadata(None), file)
    with pytest.raises(InputError, match="num_query="):
        load_features(file)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"feature": [[1.0, 2.0]] * 4 + [[1.0]]}, "row 4.*1 values.*2"),
        ({"feature": [[1.0, 2.0]] * 4 + [None]}, "row 4.*null"),
        ({"feature": [[1.0, 2.0]] * 4 + [[1.0, None]]}, "row 4.*null"),
        ({"feature": [[1.0, 2.0]] * 4 + [[1.0, np.nan]]}, "row 4.*NaN"),
        ({"feature": [[1.0, 2.0]] * 4 + [[np.inf, 1.0]]}, "row 4.*inf"),
        ({"feature": [[1, 2]] * 3}, "feature should hold lists of floats.*int64"),
        ({"feature": [1.0, 2.0]}, "feature should hold lists of floats.*double"),
        ({"feature": [[[1.0]], [[2.0]]]}, "feature should hold lists of floats"),
        ({"feature": [[1.0]], "features": [[1.0]]}, "feature, features|features, feature"),
        ({"path": ["a"], "vector": [[1.0]]}, "path, vector"),
        ({"feature": pa.array([], pa.list_(pa.float32()))}, "no row"),
        ({"feature": [[1.0]] * 2, "path": ["a", None]}, "row 1: path"),
        ({"feature": [[1.0]] * 2, "pid": [1, None]}, "row 1: pid"),
        ({"feature": [[1.0]] * 2, "pid": ["ann", "NaN"]}, "pid.*row 1"),
    ],
)
def test_features_that_cannot_be_used(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=rf"f\.parquet.*{message}"):
        load_features(saved(tmp_path, "f.parquet", **columns), num_query=1)


def test_features_are_ranked_as_those_of_an_npz(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from murank import save_features

    made = make_features(num_ids=4, num_cameras=2, images_per_camera=2, num_distractors=4, dim=8)
    save_features(tmp_path / "f.npz", made)
    file = saved(
        tmp_path, "f", feature=list(made.features), path=made.paths.tolist(),
        pid=made.pids, camid=made.camids,
    )  # fmt: skip
    told = []
    for source in (tmp_path / "f.npz", file):
        options = ["--num-query", made.num_query, "--quiet", "--json"]
        assert main(list(map(str, ["rerank", source, "--method", "ecn", *options]))) == 0
        assert main(list(map(str, ["evaluate", source, *options[:2]]))) == 0
        told.append(capsys.readouterr().out)
    assert "rank-1" in told[0]
    changing = (str(tmp_path / "f.npz"), str(file))
    assert (
        told[0].replace(changing[0], "F").splitlines()[1:]
        == (told[1].replace(changing[1], "F").splitlines()[1:])
    )


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    file = saved(tmp_path, path=["a"])
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MachineError, match=r"pip install 'murank\[parquet\]'"):
        list_images(file)

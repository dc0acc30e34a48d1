from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank import FeatureSet, InputError, OutputError, load_features, save_features

Arrays = dict[str, NDArray[Any]]


def saved(tmp_path: Path, arrays: Arrays) -> Path:
    file = tmp_path / "f.npz"
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_keeps_what_the_file_holds(tmp_path: Path, arrays: Arrays, dtype: type) -> None:
    arrays["features"] = (arrays["features"] * 100).astype(dtype)
    found = load_features(saved(tmp_path, arrays))
    assert found.features.dtype == dtype
    np.testing.assert_array_equal(found.features, arrays["features"])
    assert found.num_query == 2
    assert found.num_gallery == 3
    assert found.query.paths.tolist() == ["query/a", "query/b"]
    assert found.labels is not None
    wanted = ([1, 2], [1, 2, 3], [1, 1], [2, 2, 2])
    for ids, one in zip(found.labels.as_arguments(), wanted, strict=True):
        np.testing.assert_array_equal(ids, one)


def test_labels_are_optional(tmp_path: Path, arrays: Arrays) -> None:
    del arrays["camids"]
    found = load_features(saved(tmp_path, arrays))
    assert found.camids is None
    assert found.gallery.pids is not None
    assert found.labels is not None
    assert found.labels.q_camids is None
    del arrays["pids"]
    assert load_features(saved(tmp_path, arrays)).labels is None


def test_clothes_go_with_persons_and_cameras(tmp_path: Path, arrays: Arrays) -> None:
    arrays["clothes"] = np.array([4, -1, 6, 7, 8])
    found = load_features(saved(tmp_path, arrays))
    save_features(tmp_path / "again.npz", found)
    labels = load_features(tmp_path / "again.npz").labels
    assert labels is not None
    assert labels.q_clothes is not None
    assert labels.g_clothes is not None
    assert (labels.q_clothes.tolist(), labels.g_clothes.tolist()) == ([4, -1], [6, 7, 8])
    del arrays["pids"]
    assert load_features(saved(tmp_path, arrays)).labels is None


def test_tensors_and_columns_are_taken(tmp_path: Path, arrays: Arrays) -> None:
    torch: Any = pytest.importorskip("torch")
    pandas: Any = pytest.importorskip("pandas")
    values = torch.tensor(arrays["features"], requires_grad=True).bfloat16()
    pids, camids = torch.tensor(arrays["pids"]), pandas.Series(arrays["camids"])
    made: Any = FeatureSet
    save_features(tmp_path / "f.npz", made(values, arrays["paths"].tolist(), pids, camids, 2))
    found = load_features(tmp_path / "f.npz")
    np.testing.assert_array_equal(found.features, values.detach().float().numpy())
    assert found.pids is not None
    assert found.camids is not None
    assert found.pids.tolist() == arrays["pids"].tolist()
    assert found.camids.tolist() == arrays["camids"].tolist()


def test_saved_features_are_loaded_again(tmp_path: Path, arrays: Arrays) -> None:
    file = tmp_path / "new" / "f.npz"
    features = FeatureSet(
        arrays["features"], arrays["paths"], arrays["pids"], camids=None, num_query=2,
        encoder_sha256="ab",
    )  # fmt: skip
    save_features(file, features)
    found = load_features(file)
    np.testing.assert_array_equal(found.features, arrays["features"])
    assert found.camids is None
    assert found.encoder_sha256 == "ab"
    with pytest.raises(OutputError, match="exists"):
        save_features(file, features)
    save_features(file, features, overwrite=True)


def test_num_query_overrides_the_paths(tmp_path: Path, arrays: Arrays) -> None:
    assert load_features(saved(tmp_path, arrays), num_query=4).num_query == 4


@pytest.mark.parametrize("num_query", [0, -1, 5, 6])
def test_num_query_out_of_range(tmp_path: Path, arrays: Arrays, num_query: int) -> None:
    with pytest.raises(InputError, match="5 rows"):
        load_features(saved(tmp_path, arrays), num_query=num_query)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["query/a", "g/a", "query/b", "g/b", "g/c"], r"row 2 \(query/b\) follows"),
        (["g/a", "query/a", "g/b", "g/c", "g/d"], r"row 1 \(query/a\) follows"),
        (["a", "b", "c", "d", "e"], "no path contains .*num_query="),
        (["query"] * 5, "every path contains .*num_query="),
    ],
)
def test_queries_that_cannot_be_told(
    tmp_path: Path, arrays: Arrays, paths: list[str], message: str
) -> None:
    arrays["paths"] = np.array(paths)
    with pytest.raises(InputError, match=message):
        load_features(saved(tmp_path, arrays))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("features", np.zeros((5, 4), np.int64), "features"),
        ("features", np.zeros(5), "features"),
        ("paths", np.array(["query", "g"]), r"paths must have shape \[5\], got \[2\]"),
        ("paths", np.arange(5), "paths must be text, got int64"),
        ("pids", np.arange(4), "pids"),
        ("camids", np.full(5, 0.5), "camids"),
        ("camids", np.full(5, np.nan), "camids"),
        ("clothes", np.zeros(4, int), "clothes"),
        ("paths", np.array(["query", "g"], dtype=object), "'paths' holds Python objects"),
        ("pids", np.array([1, None] * 2 + [3], dtype=object), "'pids' holds Python objects"),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, arrays: Arrays, key: str, value: NDArray[Any], message: str
) -> None:
    arrays[key] = value
    with pytest.raises(InputError, match=message):
        load_features(saved(tmp_path, arrays))


def test_the_file_may_say_how_many_are_queries(tmp_path: Path, arrays: Arrays) -> None:
    arrays["paths"] = np.array(["a", "b", "c", "d", "e"])
    arrays["num_query"] = np.array(3)
    file = saved(tmp_path, arrays)
    assert load_features(file).num_query == 3
    assert load_features(file, num_query=1).num_query == 1
    save_features(tmp_path / "again.npz", load_features(file))
    assert load_features(tmp_path / "again.npz").num_query == 3


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.array(0), "num_query"),
        (np.array(5), "num_query"),
        (np.array([2, 3]), "num_query"),
        (np.array(2.0), "num_query"),
    ],
)
def test_a_stored_number_of_queries_that_cannot_be(
    tmp_path: Path, arrays: Arrays, stored: NDArray[Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_features(saved(tmp_path, {**arrays, "num_query": stored}))


def test_paths_are_optional_where_it_is_said_which_rows_are_queries(
    tmp_path: Path, arrays: Arrays
) -> None:
    del arrays["paths"]
    file = saved(tmp_path, arrays)
    with pytest.raises(InputError, match=r"f\.npz.*num_query"):
        load_features(file)
    found = load_features(file, num_query=2)
    assert (found.num_gallery, found.has_paths, found.shared_notes) == (3, False, [])
    assert found.gallery.paths.tolist() == ["2", "3", "4"]
    save_features(tmp_path / "again.npz", found)
    assert "paths" not in np.load(tmp_path / "again.npz")
    assert load_features(tmp_path / "again.npz").num_query == 2


def test_queries_that_are_gallery_rows_are_counted(tmp_path: Path, arrays: Arrays) -> None:
    assert load_features(saved(tmp_path, arrays)).shared_notes == []
    arrays["paths"][3] = "query/b"
    (note,) = load_features(saved(tmp_path, arrays), num_query=2).shared_notes
    assert note.startswith("1 of 2 queries are in the gallery")

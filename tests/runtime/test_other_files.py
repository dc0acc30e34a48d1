"""Features and distances as other toolkits leave them: names, halves, text, and files not read."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from refusal import Refuse

from murank import FeatureSet, InputError, load_features, save_features
from murank.cli import main
from murank.datasets.named_ids import number_of
from murank.rerank.distances import load_distances

Arrays = dict[str, NDArray[Any]]
Q, N = 2, 5
DOCS = Path(__file__).parents[2] / "docs" / "formats.md"


def halves(arrays: Arrays, names: dict[str, str]) -> Arrays:
    """The arrays by other names; those with {} are of one side each, given as (query, gallery)."""
    made = {}
    for ours, theirs in names.items():
        if "|" not in theirs:
            made[theirs] = arrays[ours]
            continue
        query, gallery = theirs.split("|")
        made |= {query: arrays[ours][:Q], gallery: arrays[ours][Q:]}
    return made


def check_same(found: FeatureSet, arrays: Arrays) -> None:
    np.testing.assert_array_equal(found.features, arrays["features"])
    assert found.num_query == Q
    assert found.pids is not None
    assert found.camids is not None
    assert found.pids.tolist() == arrays["pids"].tolist()
    assert found.camids.tolist() == arrays["camids"].tolist()


NAMES = [
    {"features": "qf|gf", "pids": "q_pids|g_pids", "camids": "q_camids|g_camids"},
    {"features": "query_f|gallery_f", "pids": "query_label|gallery_label",
     "camids": "query_cam|gallery_cam"},
    {"features": "probFea|galFea", "pids": "probe_ids|gallery_ids", "camids": "q_cam|g_cam"},
    {"features": "feat_q|feat_g", "pids": "pids_q|pids_g", "camids": "camids_q|camids_g"},
    {"features": "feats", "pids": "labels", "camids": "cam_ids", "paths": "img_paths"},
    {"features": "Embeddings", "pids": "PID", "camids": "cameraIDs", "paths": "names"},
    {"features": "features", "pids": "query_ids|gallery_ids", "camids": "camids", "paths": "paths"},
]  # fmt: skip


@pytest.mark.parametrize("names", NAMES)
def test_names_of_others(tmp_path: Path, arrays: Arrays, names: dict[str, str]) -> None:
    file = tmp_path / "f.npz"
    np.savez(file, **halves(arrays, names))  # type: ignore[arg-type]
    found = load_features(file)
    check_same(found, arrays)
    assert found.has_paths == ("paths" in names)
    assert found.paths.tolist() == (
        arrays["paths"].tolist() if "paths" in names else [str(row) for row in range(N)]
    )


def test_as_matlab_has_them(tmp_path: Path, arrays: Arrays) -> None:
    """Labels in a row of floats, in halves; paths in bytes."""
    file = tmp_path / "f.npz"
    labels: Any = {f"{side}_label": arrays["pids"][part][None].astype(float)
              for side, part in (("query", slice(Q)), ("gallery", slice(Q, None)))}  # fmt: skip
    camids, paths = arrays["camids"][:, None].astype(float), np.char.encode(arrays["paths"])
    np.savez(file, features=arrays["features"], camids=camids, paths=paths, **labels)
    found = load_features(file)
    assert found.labels is not None
    known: Any = found.labels
    assert [*known.q_pids, *known.g_pids] == arrays["pids"].tolist()
    assert [*known.q_camids, *known.g_camids] == arrays["camids"].tolist()
    assert found.paths.tolist() == arrays["paths"].tolist()


def test_ids_that_are_names(tmp_path: Path, arrays: Arrays) -> None:
    file = tmp_path / "f.npz"
    people = np.array(["ann", "bob", "ann", "bob", "cy"])
    given: Any = {**arrays, "pids": people, "camids": np.array([b"01", b"1", b"2", b"2", b"x"])}
    np.savez(file, **given)
    save_features(tmp_path / "again.npz", load_features(file))
    for one in (file, tmp_path / "again.npz"):
        found = load_features(one)
        assert found.pids is not None
        assert found.camids is not None
        assert found.pids.tolist() == [number_of(name) for name in people]
        assert len(set(found.pids.tolist())) == 3
        assert found.camids.tolist() == [1, 1, 2, 2, number_of("x")]
        assert found.id_names == ("ann", "bob", "cy", "x")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"qf": "features"}, ["qf", "gallery"]),
        ({"feats": "features", "embeddings": "features"}, ["feats", "embeddings"]),
        ({"qf": "pids", "gf": "features"}, ["qf", "gf"]),
        ({"features": "features", "q_pids": "pids"}, ["q_pids", "gallery"]),
        ({"distmat": "features", "pids": "pids"}, ["distances", "evaluate"]),
        ({"other": "features"}, ["lacks features", "other"]),
    ],
)
def test_names_that_do_not_fit(
    tmp_path: Path, arrays: Arrays, changed: dict[str, str], words: list[str]
) -> None:
    file = tmp_path / "f.npz"
    np.savez(file, **{name: arrays[of] for name, of in changed.items()})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"f\.npz") as told:
        load_features(file)
    for word in words:
        assert word in str(told.value)


@pytest.mark.parametrize("labels", ["pids", "camids", "clothes"])
def test_labels_of_the_other_side(tmp_path: Path, arrays: Arrays, labels: str) -> None:
    """As many in all, but the gallery's stand where the queries' should."""
    made = halves(arrays, {"features": "qf|gf", "pids": "q_pids|g_pids"})
    made |= {f"g_{labels}": np.arange(Q), f"q_{labels}": np.arange(N - Q)}
    np.savez(tmp_path / "f.npz", **made)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"f\.npz: q_{labels} and g_{labels} have 3 and 2"):
        load_features(tmp_path / "f.npz")


@pytest.mark.parametrize("labels", ["pids", "camids"])
@pytest.mark.parametrize("names_first", [True, False])
def test_names_beside_numbers(
    tmp_path: Path, arrays: Arrays, labels: str, names_first: bool
) -> None:
    """Cameras c1 and 1 are two: nothing would be dropped."""
    names, numbers = np.array(["c1", "-1", "c2"]), np.array([1, -1])
    sides = {"g": names, "q": numbers}
    made = halves(arrays, {"features": "qf|gf"})
    if names_first:
        made = {"qf": arrays["features"][Q:], "gf": arrays["features"][:Q]}
        sides = {"q": names, "g": numbers}
    made |= {f"{side}_{labels}": ids for side, ids in sides.items()}
    np.savez(tmp_path / "f.npz", **made)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"f\.npz: {labels}"):
        load_features(tmp_path / "f.npz")


def test_a_missing_id_is_no_name(tmp_path: Path, arrays: Arrays) -> None:
    arrays["pids"] = np.array(["7", "8", "nan", "7", "8"])
    np.savez(tmp_path / "f.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"f\.npz: pids: row 2 is nan"):
        load_features(tmp_path / "f.npz")


def test_a_second_array_of_a_kind_is_told(
    tmp_path: Path, arrays: Arrays, caplog: pytest.LogCaptureFixture
) -> None:
    qf = np.zeros((Q, 3), np.float32)
    np.savez(tmp_path / "f.npz", **arrays, qf=qf, gf=qf, num_query=[[Q]])  # type: ignore[arg-type]
    found = load_features(tmp_path / "f.npz")
    np.testing.assert_array_equal(found.features, arrays["features"])
    assert found.num_query == Q
    assert "qf, gf" in caplog.text


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"id_names": np.ones((2, 1))}, "id_names"),
        ({"q_clothes": np.ones(2), "g_clothes": np.zeros(3, "M8[D]")}, "q_clothes and g_clothes"),
        ({"q_clothes": np.ones(2), "g_clothes": np.ones((3, 2))}, "q_clothes and g_clothes"),
        ({"paths": np.array([b"\xff"] * N)}, "paths"),
        ({"pids": np.array(["a"] * (N - 1))}, "pids"),
        ({"num_query": np.array([2, 3])}, "num_query"),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, arrays: Arrays, changed: dict[str, Any], word: str
) -> None:
    file = tmp_path / "f.npz"
    known: Any = {**arrays, **changed}
    np.savez(file, **known)
    with pytest.raises(InputError, match=word):
        load_features(file)
    with pytest.raises(InputError, match="distmat"):
        load_distances(file)


@pytest.mark.parametrize("form", ["halves", "muse", "others"])
def test_distances(tmp_path: Path, arrays: Arrays, form: str) -> None:
    distances = np.random.default_rng(0).random((Q, N - Q))
    names = {
        "halves": {"pids": "q_pids|g_pids", "camids": "q_camids|g_camids"},
        "muse": {"paths": "paths", "pids": "pids", "camids": "camids"},
        "others": {"pids": "query_ids|gallery_ids", "camids": "query_cams|gallery_cams"},
    }[form]
    file = tmp_path / "d.npz"
    key = "dist" if form == "others" else "distmat"
    np.savez(file, **{key: distances, **halves(arrays, names)})  # type: ignore[arg-type]
    found = load_distances(file)
    np.testing.assert_array_equal(found.distmat, distances)
    labels: Any = found.labels
    assert [*labels.q_pids, *labels.g_pids] == arrays["pids"].tolist()
    assert [*labels.q_camids, *labels.g_camids] == arrays["camids"].tolist()
    assert (len(labels.q_pids), len(labels.q_camids)) == (Q, Q)
    assert main(["evaluate", str(file), "--json"]) == 0


CONTENTS = {
    "x.npy": b"\x93NUMPY\x01\x00", "x.mat": b"MATLAB 5.0 MAT-file, Platform",
    "y.mat": b"MATLAB 7.3 MAT-file, Platform", "x.h5": b"\x89HDF\r\n\x1a\n",
    "x.pkl": pickle.dumps([1]), "x.pickle": b"\x80\x02]q\x00.", "x.feather": b"ARROW1\0\0",
    "x.pt": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
}  # fmt: skip
BY_NAME = ("x.csv", "x.ckpt", "x.json", "x.safetensors", "x.MAT", "x.hdf5", "x.tar")


@pytest.mark.parametrize(
    "verb", [("rerank", "--method", "none"), ("evaluate",), ("align", "-o", "a.npz")]
)
def test_files_of_other_tools_are_named(
    tmp_path: Path, refuse: Refuse, verb: tuple[str, ...]
) -> None:
    """By what they hold, whatever they are called, else by name."""
    for name, content in {**CONTENTS, **dict.fromkeys(BY_NAME, b"?")}.items():
        for file in (tmp_path / name, *[tmp_path / "f.npz"] * (content != b"?")):
            file.write_bytes(content)
            said = refuse(verb[0], file, *verb[1:], names=file)
            assert "docs/formats.md" in said


def test_what_torch_saves_is_known(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip("torch")
    for kind in (True, False):
        torch.save({"qf": torch.ones(2)}, tmp_path / "f.npz", _use_new_zipfile_serialization=kind)
        with pytest.raises(InputError, match="PyTorch"):
            load_features(tmp_path / "f.npz")


def recipes() -> list[str]:
    part = DOCS.read_text(encoding="utf-8").split("### Features from other tools")[1]
    return re.findall(r"```python\n(.*?)```", part.split("\n## ")[0], re.DOTALL)


def write_file_of(recipe: str, arrays: Arrays) -> None:
    """Write what a recipe reads, here."""
    known = {"qf": arrays["features"][:Q], "gf": arrays["features"][Q:]}
    for name in ("pids", "camids"):
        known |= {f"q_{name}": arrays[name][:Q], f"g_{name}": arrays[name][Q:]}
    if "features.npy" in recipe:
        np.save("features.npy", arrays["features"])
        rows = zip(arrays["pids"].tolist(), arrays["camids"].tolist(), strict=True)
        text = "".join(f"{pid},{camid}\n" for pid, camid in rows)
        Path("labels.csv").write_text(f"pid,camid\n{text}", encoding="utf-8")
    elif "pickle" in recipe:
        Path("features.pkl").write_bytes(pickle.dumps(known))
    elif "scipy" in recipe:
        scipy_io: Any = pytest.importorskip("scipy.io")
        scipy_io.savemat("pytorch_result.mat", known)
    elif "torch" in recipe:
        import torch

        torch.save({key: torch.tensor(value) for key, value in known.items()}, "features.pt")
    else:
        h5py: Any = pytest.importorskip("h5py")
        with h5py.File("features.h5", "w") as file:
            for key, value in known.items():
                file[key] = value


@pytest.mark.parametrize("recipe", recipes())
def test_recipes_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: Arrays, recipe: str
) -> None:
    for library in re.findall(r"pandas|torch|h5py|scipy", recipe):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    write_file_of(recipe, arrays)
    exec(recipe, {})  # noqa: S102
    check_same(load_features("F.npz"), arrays)

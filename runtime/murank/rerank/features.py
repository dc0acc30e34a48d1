"""Feature sets: the customary .npz of the field, or Parquet; queries first."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, OutputError
from murank.checks.text import warn
from murank.datasets.labels import Ids, Labels
from murank.datasets.named_ids import check_alike, check_given, note_of_names, numbered
from murank.files.atomic import check_writable, write_files
from murank.files.npz import check_array, open_npz, read_npz
from murank.files.parquet import is_parquet
from murank.files.urls import is_url, listed_url
from murank.images.arguments import take_arrays
from murank.rerank.array_names import NamedArrays
from murank.rerank.parquet_features import read_parquet_features

LABELS = ("pids", "camids", "clothes")
_ENCODER = "encoder_sha256"
_WHOLE = 2.0**53  # floats below tell whole numbers apart
_NAMES = "id_names"


@dataclass(frozen=True)
class Items:
    """Some rows of a feature set (views, no copies)."""

    features: NDArray[np.floating[Any]]  # [n,D]
    paths: NDArray[np.str_]  # [n]
    pids: Ids | None  # [n] person ids
    camids: Ids | None  # [n] camera ids
    clothes: Ids | None = None  # [n] what the person wears


@dataclass(frozen=True)
class FeatureSet:
    """Features of query and gallery images, queries first."""

    features: NDArray[np.floating[Any]]  # [N,D] as stored: any scale, float16, 32 or 64
    paths: NDArray[np.str_]  # [N]; numbers of rows where the file has none
    pids: Ids | None  # [N] person ids
    camids: Ids | None  # [N] camera ids
    num_query: int  # rows before this one are queries, the others are the gallery
    encoder_sha256: str | None = None  # of the engine's encoder that made them, if one did
    unlabelled: str | None = None  # why pids or camids are not known, where that is known
    has_paths: bool = True  # False: they are numbers of rows
    clothes: Ids | None = None  # [N] what the person wears, an id an outfit; -1: not known
    id_names: tuple[str, ...] = ()  # ids that are named: their numbers are `number_of` these

    def __post_init__(self) -> None:
        """Take tensors, lists and columns, too."""
        take_arrays(self)

    @property
    def query(self) -> Items:
        """The query rows."""
        return self._rows(slice(None, self.num_query))

    @property
    def gallery(self) -> Items:
        """The gallery rows."""
        return self._rows(slice(self.num_query, None))

    @property
    def num_gallery(self) -> int:
        """Number of gallery rows."""
        return len(self.paths) - self.num_query

    @property
    def labels(self) -> Labels | None:
        """Person ids, None unless these are known; and cameras and clothes, where those are."""
        query, gallery = self.query, self.gallery
        if query.pids is None or gallery.pids is None:
            return None
        return Labels(
            query.pids, gallery.pids, query.camids, gallery.camids, query.clothes, gallery.clothes
        )

    @property
    def shared_notes(self) -> list[str]:
        """A note that counts the queries which are gallery rows, too; or none."""
        shared = self.query.paths[np.isin(self.query.paths, self.gallery.paths)]
        if not self.has_paths or not len(shared):
            return []
        return [
            f"{len(shared):,} of {self.num_query:,} queries are in the gallery, too, and find "
            f"themselves there; the first is {shared[0]}"
        ]

    def _rows(self, part: slice) -> Items:
        known = (getattr(self, name) for name in LABELS)
        ids = (None if values is None else values[part] for values in known)
        return Items(self.features[part], self.paths[part], *ids)


def load_features(path: str | os.PathLike[str], num_query: int | None = None) -> FeatureSet:
    """Read a feature set.

    Parameters
    ----------
    path
        .npz with `features` [N,D] float16/32/64 and, where known, `paths` [N] str, `pids` [N],
        `camids` [N], `clothes` [N], `num_query` [] int and `encoder_sha256` [] str. Nothing
        pickled is ever loaded. Without paths, rows are called by their numbers.
        Or Parquet, by its first bytes or the name .parquet: a column `feature` of lists of floats,
        all of one length, and where known `path`, `pid`, `camid`, `clothes`; `num_query` and
        `encoder_sha256` in the file's own metadata.
    num_query
        How many leading rows are queries. None: as the file's `num_query` says; without it, those
        whose path contains "query".

    Raises
    ------
    InputError
        The file cannot be read, lacks an array, or its arrays do not fit together.
    MachineError
        It is Parquet, and pyarrow (the extra `parquet`) is not installed.
    """
    file = Path(path)
    return feature_set(read_arrays(file), file, num_query)


def map_features(path: str | os.PathLike[str], num_query: int | None = None) -> FeatureSet:
    """Read as `load_features` does, but let large features stay in their .npz file.

    Nobody may write into that file meanwhile; another one may be renamed over it.
    """
    file = Path(path)
    return feature_set(read_arrays(file, mapped=("features",)), file, num_query)


def feature_set(
    arrays: dict[str, NDArray[Any]], file: Path, num_query: int | None = None
) -> FeatureSet:
    """Return what `read_arrays` has read of a file, checked. Raises as `load_features`."""
    arrays, id_names = customary(arrays, file)
    features = arrays["features"]
    check_array(features, f"{file}: features", kinds="f", shape=(None, None))
    if features.dtype.itemsize > 8:
        raise InputError(f"{file}: features must be float16, 32 or 64, got {features.dtype}")
    paths = arrays.get("paths")
    if paths is not None:
        check_array(paths, f"{file}: paths", kinds="U", shape=(len(features),))
    for key in LABELS:
        if key in arrays:
            check_array(arrays[key], f"{file}: {key}", kinds="iu", shape=(len(features),))
    if num_query is None:
        num_query = _num_query(arrays, file)
    elif not 1 <= num_query < len(features):
        raise InputError(
            f"{num_query} queries asked for, but {file} has {len(features)} rows: "
            f"at least one query and one gallery row are needed"
        )
    for key in LABELS:
        check_alike(arrays.get(key), num_query, f"{file}: {key}")
    return FeatureSet(
        features, np.arange(len(features)).astype(str) if paths is None else paths,
        arrays.get("pids"), arrays.get("camids"), num_query, _encoder(arrays, file),
        has_paths=paths is not None, clothes=arrays.get("clothes"), id_names=id_names,
    )  # fmt: skip


def read_arrays(file: Path, *, mapped: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Return what a features file holds, by name, unchecked. Raises as `load_features`.

    `mapped`: what may stay in the file.
    """
    if is_parquet(file):
        return read_parquet_features(file)
    named = named_arrays(file)
    if "features" not in named.sources:
        if "distmat" in named.sources:
            raise InputError(
                f"{file} holds distances, which murank evaluate reads; this needs features"
            )
        read_npz(file, ("features",))  # says what it holds
    stays = [name for role in mapped for name in named.sources.get(role, ())]
    arrays = read_npz(file, named.wanted, (_ENCODER, _NAMES), mapped=stays)
    ours = {key: arrays[key] for key in (_ENCODER, _NAMES) if key in arrays}
    return {**named.joined(arrays), **ours}


def named_arrays(file: Path) -> NamedArrays:
    """Return which arrays of an .npz are features, labels and distances."""
    with open_npz(file) as archive:
        return NamedArrays.of(archive.files, file)


def check_has_paths(features: FeatureSet, file: str | os.PathLike[str], why: str) -> None:
    """Raise InputError if nobody knows which images of here these are of; `why` they are needed."""
    if not features.has_paths:
        raise InputError(f"{file} has no paths, and {why}: add an array of them, a row each")
    for row, path in enumerate(features.paths.tolist()):
        if is_url(path):
            raise listed_url(f"{file}, row {row}", path)


def save_features(
    path: str | os.PathLike[str], features: FeatureSet, *, overwrite: bool = False
) -> None:
    """Write a feature set as `load_features` reads it; nothing appears half written.

    Raises
    ------
    OutputError
        The file exists and `overwrite` is False, or it cannot be written.
    """
    file = Path(path)
    check_file(file, overwrite=overwrite)
    arrays = feature_arrays(features)
    write_files(file.parent, {file.name: lambda handle: np.savez(handle, **arrays)})


def feature_arrays(features: FeatureSet) -> dict[str, Any]:
    """Return what a features file holds, by name."""
    names = ("features", *(("paths",) if features.has_paths else ()), *LABELS)
    values = {name: getattr(features, name) for name in names}
    arrays = {name: value for name, value in values.items() if value is not None}
    if features.encoder_sha256 is not None:
        arrays[_ENCODER] = np.array(features.encoder_sha256)
    if features.id_names:
        arrays[_NAMES] = np.array(features.id_names)
    return {**arrays, "num_query": np.array(features.num_query, np.int64)}


def check_file(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `save_features` may not write there."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; pass overwrite=True or another name")
    check_writable(path.parent)


def customary(
    arrays: dict[str, NDArray[Any]], file: Path
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return paths as text and ids as whole numbers where they can be; and names that are ids."""
    stored = arrays.get(_NAMES, np.array([], str))
    check_array(stored, f"{file}: {_NAMES}", kinds="U", shape=(None,))
    names: set[str] = set(stored.tolist())
    changed = dict(arrays)
    if "paths" in arrays:
        changed["paths"] = as_text(arrays["paths"], f"{file}: paths")
    for key in LABELS:
        if key in arrays:
            changed[key], found = as_ids(arrays[key], f"{file}: {key}")
            names.update(found)
            for note in note_of_names(f"{file}, {key}", found):
                warn(note)
    return changed, tuple(sorted(names))


def as_text(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return text, decoded if it is in bytes; what is neither stays as it is."""
    if values.dtype.kind != "S":
        return values
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} are bytes that are not UTF-8; save them as text") from error


def as_ids(values: NDArray[Any], name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return ids as integers, and which are names; what cannot be stays as it is.

    MATLAB's are floats, others' are text.
    """
    row = as_text(values, name)
    if row.dtype.kind == "U" and row.ndim == 1:
        texts = row.tolist()
        check_given(texts, name)
        return numbered(texts)
    if row.dtype.kind == "f" and (np.abs(row) < _WHOLE).all() and (row == np.round(row)).all():
        return row.astype(np.int64), ()
    return row, ()


def _encoder(arrays: dict[str, NDArray[Any]], file: Path) -> str | None:
    if _ENCODER not in arrays:
        return None
    check_array(arrays[_ENCODER], f"{file}: {_ENCODER}", kinds="U", shape=())
    return str(arrays[_ENCODER])


def _num_query(arrays: dict[str, NDArray[Any]], file: Path) -> int:
    if "num_query" not in arrays and "paths" not in arrays:
        raise InputError(
            f"{file} has neither num_query nor paths, so queries and gallery cannot be told apart; "
            "pass num_query="
        )
    if "num_query" not in arrays:
        return _count_queries(arrays["paths"], file)
    stored, num_rows = arrays["num_query"], len(arrays["features"])
    stored = stored.reshape(()) if stored.size == 1 else stored  # MATLAB's are [1,1]
    check_array(stored, f"{file}: num_query", kinds="iu", shape=())
    if stored == 0:
        raise InputError(
            f"{file} is a gallery without queries (num_query is 0): put rows of queries before it "
            "and pass num_query=, or ask about one image by murank gallery search"
        )
    if not 1 <= stored < num_rows:
        raise InputError(
            f"{file}: num_query is {stored}, but there are {num_rows} rows: at least one query and "
            "one gallery row are needed; pass num_query="
        )
    return int(stored)


def _count_queries(paths: NDArray[np.str_], file: Path) -> int:
    is_query = np.char.find(paths, "query") >= 0
    count = int(is_query.sum())
    if count in (0, len(paths)):
        how_many = "no path" if count == 0 else "every path"
        raise InputError(
            f'{file}: {how_many} contains "query", so queries and gallery cannot be told apart; '
            "pass num_query="
        )
    if not is_query[:count].all():
        row = int(np.flatnonzero(is_query)[is_query[:count].sum()])
        raise InputError(
            f"{file}: queries must come first, but row {row} ({paths[row]}) follows a gallery row; "
            "reorder the rows or pass num_query="
        )
    return count

"""Feature sets in Parquet: a row an image, its feature in a column of lists."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.checks.text import warn
from murank.datasets.listed_paths import columns_of
from murank.files.parquet import ParquetTable, named, open_parquet
from murank.machine.memory import available_bytes

_FEATURE = ("features", "feature")  # what the column may be called
_ARRAYS = {"path": "paths", "pid": "pids", "camid": "camids", "clothes": "clothes"}


def has_features(file: Path) -> bool:
    """Whether a Parquet file has a column of features, and is no list of images alone."""
    with open_parquet(file) as table:
        return bool({*_FEATURE} & {*table.columns})


def read_parquet_features(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a features .npz: features, and where known paths, pids, camids, clothes.

    `num_query` and `encoder_sha256` are read from the file's own metadata, where they are there.
    InputError names the row that cannot be used.
    """
    with open_parquet(file) as table:
        names = [name for name in _FEATURE if name in table.columns]
        if len(names) != 1:
            what = f"two of them: {named(names)}" if names else f"only {named(table.columns)}"
            raise InputError(f"{file} should have one column of features, 'feature'; it has {what}")
        others = table.others(names)
        columns = columns_of(others, file)
        for note in columns.notes:
            warn(note)
        called = {others[place]: _ARRAYS[name] for name, place in columns.places.items()}
        return {**_read(table, names[0], called), **_scalars(table)}


def _read(table: ParquetTable, feature: str, called: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Read the column of features, and others, which are arrays `called` so."""
    dtype = table.list_dtype(feature)
    for name, array in called.items():
        table.check_text(name) if array == "paths" else table.check_ids(name)
    features: NDArray[Any] | None = None
    kept: dict[str, list[Any]] = {name: [] for name in called}
    for first, (vectors, *columns) in table.batches([feature, *called]):
        length = None if features is None else features.shape[1]
        rows = table.vectors(feature, vectors, first, length)
        if features is None:
            features = _room(table, rows.shape[1], dtype)
        features[first : first + len(rows)] = rows
        for name, column in zip(called, columns, strict=True):
            read: Callable[..., Any] = table.texts if called[name] == "paths" else table.ids
            kept[name].append(np.array(read(name, column, first)))
    if features is None:
        raise InputError(f"{table.path} has no row")
    arrays = {called[name]: np.concatenate(parts) for name, parts in kept.items()}
    return {"features": features, **arrays}


def _room(table: ParquetTable, length: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array for all features. Raises InputError if there is no memory for it."""
    total, free = table.num_rows * length * dtype.itemsize, available_bytes()
    if free is not None and total > free:
        raise InputError(
            f"{table.path}: its features would take {total >> 20} MiB, and {free >> 20} MiB of "
            "memory are free"
        )
    return np.empty((table.num_rows, length), dtype)


def _scalars(table: ParquetTable) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    if (count := table.metadata.get(b"num_query")) is not None:
        if not count.isdigit() or len(count) > 18:
            raise InputError(f"{table.path}: num_query in its metadata should be a whole number")
        found["num_query"] = np.array(int(count))
    if (encoder := table.metadata.get(b"encoder_sha256")) is not None:
        found["encoder_sha256"] = np.array(encoder.decode(errors="replace"))
    return found

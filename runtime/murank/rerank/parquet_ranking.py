"""Rankings in Parquet: a row a candidate match, a million rows a file, and a list of the gallery.

`ranking-00000.parquet` and so on: whole queries, in order, each best first. The gallery, of which a
ranking shows a part only, is in `ranking-gallery.parquet`, as a list of images is.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.files.atomic import Writer
from murank.files.parquet import ParquetTable, open_parquet, pyarrow
from murank.rerank.mu import MuDistances

FIRST_PART = "ranking-00000.parquet"
GALLERY_FILE = "ranking-gallery.parquet"
_PART = re.compile(r"ranking-[0-9]{5}\.parquet")
_ROWS = 1_000_000  # of a file, at most; but whole queries
_GROUP = 1 << 17  # rows that are made, and written, at once
_IS_PART = b"murank_ranking"  # key of a file's metadata: which part of how many it is
# Column -> array, of what there may be of queries and of the gallery.
_IDS: Mapping[str, str] = {"pid": "pids", "camid": "camids", "clothes": "clothes"}
_QUERY_IDS = {f"query_{column}": f"q_{name}" for column, name in _IDS.items()}
_GALLERY_IDS = {column: f"g_{name}" for column, name in _IDS.items()}
_COLUMNS = ("query_index", "query_path", "rank", "candidate_index", "distance")


def parquet_files(names: Collection[str]) -> list[str]:
    """Return those of these names that a ranking in Parquet has."""
    return [name for name in names if name == GALLERY_FILE or _PART.fullmatch(name)]


def check_names(paths: NDArray[np.str_]) -> None:
    """Raise MachineError or InputError if these cannot be written as Parquet."""
    pyarrow()
    codes = np.ascontiguousarray(paths).view(np.uint32).reshape(len(paths), -1)
    is_odd = ((codes >= 0xD800) & (codes <= 0xDFFF)).any(axis=1)
    if is_odd.any():
        raise InputError(
            f"{paths[np.argmax(is_odd)]}: the name is not UTF-8, as Parquet's are; rename it, or "
            "write the ranking with format='npz' or format='jsonl'"
        )


def parquet_writers(
    arrays: Mapping[str, NDArray[Any]], mu: MuDistances | None = None
) -> dict[str, Writer]:
    """Return what writes each file of a ranking, given its arrays as an .npz has them.

    Raises MachineError if pyarrow is not installed, InputError if a path is not UTF-8.
    """
    for name in ("query_paths", "gallery_paths"):
        check_names(arrays[name])
    api = pyarrow()
    num_query, k = arrays["indices"].shape
    each = max(1, _ROWS // k)
    starts = range(0, num_query, each)
    rows = _Rows(api, arrays, _Known.of(mu, len(arrays["gallery_paths"])))
    writers: dict[str, Writer] = {GALLERY_FILE: _gallery_writer(api, arrays)}
    for part, start in enumerate(starts):
        stop = min(start + each, num_query)
        told = f"{part} of {len(starts)}"
        writers[f"ranking-{part:05d}.parquet"] = rows.writer(start, stop, told)
    return writers


def read_parquet_ranking(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ranking, given one of its files; as an .npz has them, unchecked."""
    if not parquet_files([file.name]):
        raise InputError(
            f"{file} holds neither features nor a ranking; those are called {FIRST_PART}"
        )
    parts: list[dict[str, NDArray[Any]]] = []
    part, total = 0, 1
    while part < total:
        path = file.with_name(f"ranking-{part:05d}.parquet")
        if not path.is_file():
            raise InputError(f"{path} is missing: the ranking has {total} such files")
        with open_parquet(path) as table:
            total = _number_of_parts(table, part)
            parts.append(_read_part(table))
        part += 1
    joined = {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
    gallery = file.with_name(GALLERY_FILE)
    if not gallery.is_file():
        raise InputError(f"{gallery} is missing: it lists the gallery of {file.name}")
    with open_parquet(gallery) as table:
        return {**_by_query(joined, file), **_read_gallery(table)}


@dataclass(frozen=True)
class _Known:
    """Mu of pairs, by query and gallery image."""

    keys: NDArray[np.int64]  # query * gallery size + gallery index, ascending
    values: NDArray[np.float32]
    num_gallery: int

    @classmethod
    def of(cls, mu: MuDistances | None, num_gallery: int) -> "_Known | None":
        if mu is None:
            return None
        keys = (np.arange(len(mu.mu))[:, None] * num_gallery + mu.candidates).ravel()
        order = np.argsort(keys)
        return cls(keys[order], mu.mu.ravel()[order].astype(np.float32), num_gallery)

    def of_pairs(
        self, queries: NDArray[np.int64], images: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return mu of each pair, and whether it is not known."""
        wanted = queries * self.num_gallery + images
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return self.values[place], self.keys[place] != wanted


@dataclass(frozen=True)
class _Rows:
    """A ranking, a row a candidate match."""

    api: Any
    arrays: Mapping[str, NDArray[Any]]
    mu: _Known | None

    def writer(self, start: int, stop: int, told: str) -> Writer:
        """Return what writes the rows of some queries."""

        def write(file: IO[bytes]) -> None:
            groups = self._groups(start, stop)
            first = next(groups)
            schema = first.schema.with_metadata({_IS_PART: told})
            with self.api.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
                writer.write_table(first.replace_schema_metadata(schema.metadata))
                for group in groups:
                    writer.write_table(group.replace_schema_metadata(schema.metadata))

        return write

    def _groups(self, start: int, stop: int) -> Iterator[Any]:
        each = max(1, _GROUP // self.arrays["indices"].shape[1])
        for first in range(start, stop, each):
            yield self.api.table(self._columns(first, min(first + each, stop)))

    def _columns(self, start: int, stop: int) -> dict[str, Any]:
        arrays, k = self.arrays, self.arrays["indices"].shape[1]
        queries = np.repeat(np.arange(start, stop), k)
        images = arrays["indices"][start:stop].ravel()
        columns: dict[str, Any] = {
            "query_index": queries,
            "query_path": self._texts("query_paths", queries),
            "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), stop - start),
            "candidate_index": images,
            "candidate_path": self._texts("gallery_paths", images),
            "distance": arrays["distances"][start:stop].ravel(),
        }
        if self.mu is not None:
            values, is_unknown = self.mu.of_pairs(queries, images)
            columns["mu"] = self.api.array(values, mask=is_unknown)
        for prefix, side, rows in (("query", "q", queries), ("candidate", "g", images)):
            for column, name in _IDS.items():
                if f"{side}_{name}" in arrays:
                    columns[f"{prefix}_{column}"] = arrays[f"{side}_{name}"][rows]
        return columns

    def _texts(self, name: str, rows: NDArray[np.int64]) -> Any:
        return self.api.array(self.arrays[name][rows].tolist(), self.api.string())


def _gallery_writer(api: Any, arrays: Mapping[str, NDArray[Any]]) -> Writer:
    def write(file: IO[bytes]) -> None:
        ids = {column: arrays[name] for column, name in _GALLERY_IDS.items() if name in arrays}
        paths = api.array(arrays["gallery_paths"].tolist(), api.string())
        api.parquet.write_table(api.table({"path": paths, **ids}), file, compression="zstd")

    return write


def _number_of_parts(table: ParquetTable, part: int) -> int:
    told = re.fullmatch(rb"([0-9]{1,5}) of ([0-9]{1,5})", table.metadata.get(_IS_PART, b""))
    if told is None or int(told[1]) != part or int(told[2]) <= part:
        raise InputError(f"{table.path} is not as murank rerank wrote it; write the ranking again")
    return int(told[2])


def _read_part(table: ParquetTable) -> dict[str, NDArray[Any]]:
    names = [*_COLUMNS, *(name for name in _QUERY_IDS if name in table.columns)]
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(f"{table.path} lacks the column {missing[0]}")
    table.check_text("query_path")
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for first, columns in table.batches(names):
        for name, column in zip(names, columns, strict=True):
            read = table.texts if name == "query_path" else table.numbers
            parts[name].append(np.array(read(name, column, first)))
    if not parts["rank"]:
        raise InputError(f"{table.path} has no row")
    return {name: np.concatenate(values) for name, values in parts.items()}


def _by_query(rows: dict[str, NDArray[Any]], file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of queries, given a row a candidate match."""
    is_first = rows["rank"] == 1
    num_query = int(is_first.sum())
    k = len(is_first) // max(num_query, 1)
    in_order = num_query * k == len(is_first) and (
        np.array_equal(rows["query_index"], np.repeat(np.arange(num_query), k))
        and np.array_equal(rows["rank"], np.tile(np.arange(1, k + 1), num_query))
    )
    if not in_order:
        raise InputError(f"{file}: rows are missing, or are not in the order of query and rank")
    ids = {array: rows[name][is_first] for name, array in _QUERY_IDS.items() if name in rows}
    return {
        "indices": rows["candidate_index"].reshape(num_query, k),
        "distances": rows["distance"].reshape(num_query, k),
        "query_paths": rows["query_path"][is_first], **ids,
    }  # fmt: skip


def _read_gallery(table: ParquetTable) -> dict[str, NDArray[Any]]:
    names = ["path", *(name for name in _GALLERY_IDS if name in table.columns)]
    if "path" not in table.columns:
        raise InputError(f"{table.path} lacks the column path")
    table.check_text("path")
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for first, columns in table.batches(names):
        for name, column in zip(names, columns, strict=True):
            read = table.texts if name == "path" else table.numbers
            parts[name].append(np.array(read(name, column, first)))
    return {
        _GALLERY_IDS.get(name, "gallery_paths"): np.concatenate(values or [np.array([], str)])
        for name, values in parts.items()
    }

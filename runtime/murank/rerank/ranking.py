"""Rankings on disk: the candidate matches of each query, and how they came about."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, OutputError
from murank.datasets.labels import Ids, Labels
from murank.files.atomic import Writer, abandoned, check_writable, write_files
from murank.files.npz import check_array, read_npz
from murank.files.parquet import is_parquet
from murank.files.urls import refuse_url
from murank.images.arguments import take_arrays
from murank.rerank.mu import MuDistances
from murank.rerank.parquet_ranking import (
    FIRST_PART,
    parquet_files,
    parquet_writers,
    read_parquet_ranking,
)

Format = Literal["npz", "jsonl", "parquet"]
RANKING_FILES: Mapping[Format, str] = {
    "npz": "ranking.npz", "jsonl": "ranking.jsonl", "parquet": FIRST_PART
}  # fmt: skip
SUMMARY_FILE = "summary.json"
_LABELS = ("q_pids", "g_pids", "q_camids", "g_camids", "q_clothes", "g_clothes")


@dataclass(frozen=True)
class Ranking:
    """The k nearest candidate matches of each query, best first."""

    indices: NDArray[np.int64]  # [Q,k] into the gallery
    distances: NDArray[np.float32]  # [Q,k] ascending, small = same person
    query_paths: NDArray[np.str_]  # [Q]
    gallery_paths: NDArray[np.str_]  # [G]
    q_pids: Ids | None = None  # [Q]
    g_pids: Ids | None = None  # [G]
    q_camids: Ids | None = None  # [Q]
    g_camids: Ids | None = None  # [G]
    q_clothes: Ids | None = None  # [Q]
    g_clothes: Ids | None = None  # [G]

    def __post_init__(self) -> None:
        """Take tensors and lists, too."""
        take_arrays(self)

    @property
    def labels(self) -> Labels | None:
        """Person ids, None unless these are known; and cameras and clothes, where those are."""
        if self.q_pids is None or self.g_pids is None:
            return None
        return Labels(
            self.q_pids, self.g_pids, self.q_camids, self.g_camids, self.q_clothes, self.g_clothes
        )


def load_ranking(path: str | os.PathLike[str]) -> Ranking:
    """Read `ranking.npz`, or `ranking-00000.parquet` and what belongs to it.

    `path` is the file, or the folder it lies in.

    Raises
    ------
    InputError
        The file cannot be read, lacks an array, or its arrays do not fit together.
    MachineError
        It is Parquet, and pyarrow (the extra `parquet`) is not installed.
    """
    file = ranking_file(path)
    required = ("indices", "distances", "query_paths", "gallery_paths")
    is_npz = not is_parquet(file)
    arrays = read_npz(file, required, _LABELS) if is_npz else read_parquet_ranking(file)
    indices, paths = arrays["indices"], arrays["gallery_paths"]
    check_array(indices, f"{file}: indices", kinds="iu", shape=(None, None))
    check_array(arrays["distances"], f"{file}: distances", kinds="f", shape=indices.shape)
    check_array(arrays["query_paths"], f"{file}: query_paths", kinds="U", shape=(len(indices),))
    check_array(paths, f"{file}: gallery_paths", kinds="U", shape=(None,))
    for key in set(_LABELS) & set(arrays):
        length = len(indices) if key.startswith("q_") else len(paths)
        check_array(arrays[key], f"{file}: {key}", kinds="iu", shape=(length,))
    _check_indices(indices, len(paths), file)
    arrays["indices"] = indices.astype(np.int64)
    return Ranking(**arrays)


def check_there(source: Path) -> None:
    """Raise InputError if what may be a folder is not there; of an .npz its reader says so."""
    refuse_url(source)
    if source.suffix != ".npz" and not source.exists():
        raise InputError(
            f"{source}: no such file or folder; name a folder that murank score wrote, or a file"
        )


def ranking_file(path: str | os.PathLike[str]) -> Path:
    """Return the ranking of a folder, or the path itself if it is no folder."""
    file = Path(path)
    check_there(file)
    if not file.is_dir():
        return file
    for read in (RANKING_FILES["npz"], RANKING_FILES["parquet"]):
        if (file / read).exists():
            return file / read
    if (file / RANKING_FILES["jsonl"]).exists():
        raise InputError(
            f"{file} holds ranking.jsonl only; write the ranking with format='npz' or "
            "format='parquet'"
        )
    raise InputError(
        f"{file} holds no job and no ranking; name a folder that murank score or rerank wrote, or "
        "a file"
    )


def _check_indices(indices: NDArray[Any], num_gallery: int, file: Path) -> None:
    if indices.size == 0:
        raise InputError(f"{file}: indices is empty")
    if indices.min() < 0 or indices.max() >= num_gallery:
        raise InputError(f"{file}: indices must be gallery indices in 0..{num_gallery - 1}")
    in_order = np.sort(indices, axis=1)
    if (in_order[:, 1:] == in_order[:, :-1]).any():
        raise InputError(f"{file}: indices name a gallery item twice for one query")


def ranked_files(names: Collection[str]) -> list[str]:
    """Return those of these names that `write_ranking` gives to its files."""
    ours = (SUMMARY_FILE, *RANKING_FILES.values())
    return list(dict.fromkeys([*(name for name in names if name in ours), *parquet_files(names)]))


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def check_output(
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    beside_others: bool = False,
    unfinished: bool = False,
) -> None:
    """Raise OutputError if `write_ranking` may not write there; touches nothing.

    A folder must be empty without `overwrite`; with `beside_others`, of rankings alone. What a
    killed writer left is no content; after an `unfinished` run, a ranking without a summary, too.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; name a folder")
    found = set() if overwrite else set(_names(path))
    ours = set(ranked_files(found))
    there = ours if beside_others else found - {*abandoned(path)}
    if unfinished and SUMMARY_FILE not in found:
        there = there - ours
    if there:
        holds = f"holds {min(there)}" if beside_others else "is not empty"
        raise OutputError(f"{path} {holds}; pass overwrite=True or another name")
    check_writable(path)


def write_ranking(
    folder: str | os.PathLike[str],
    ranking: Ranking,
    summary: Mapping[str, object],
    *,
    format: Format = "npz",  # noqa: A002 - the word users know
    mu: MuDistances | None = None,
    overwrite: bool = False,
) -> None:
    """Write `ranking.npz`, `.jsonl` or `ranking-00000.parquet`, and `summary.json`, into a folder.

    Nothing appears half written. `summary.json` comes last: a folder without it is incomplete.
    With `overwrite`, the files of an earlier run are replaced and all other files stay. Parquet
    has a row a candidate match, with `mu` where that is known, a million rows a file, and the
    gallery in `ranking-gallery.parquet`.

    Raises
    ------
    OutputError
        The folder holds something and `overwrite` is False, or it cannot be written.
    MachineError
        pyarrow (the extra `parquet`) is not installed.
    """
    check_output(folder, overwrite=overwrite)
    path = Path(folder)
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    writers = _writers(ranking, format, mu)
    writers[SUMMARY_FILE] = lambda file: file.write(text.encode())
    # The summary goes first and comes last: a ranking is never beside another run's summary.
    others = [name for name in ranked_files(_names(path)) if name not in writers]
    stale = [SUMMARY_FILE, *others] if overwrite else []
    write_files(path, writers, remove=stale)


def _writers(ranking: Ranking, format: Format, mu: MuDistances | None) -> dict[str, Writer]:  # noqa: A002
    arrays = {name: value for name, value in vars(ranking).items() if value is not None}
    if format == "parquet":
        return parquet_writers(arrays, mu)
    if format == "jsonl":
        return {RANKING_FILES[format]: _jsonl_writer(ranking)}
    return {RANKING_FILES[format]: lambda file: np.savez(file, **arrays)}


def _jsonl_writer(ranking: Ranking) -> Writer:
    def write(file: IO[bytes]) -> None:
        for row in _rows(ranking):
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")

    return write


def _rows(ranking: Ranking) -> Iterator[dict[str, object]]:
    paths = ranking.gallery_paths
    for query, (ids, distances) in enumerate(zip(ranking.indices, ranking.distances, strict=True)):
        candidates = [
            {"rank": rank, "corpus_id": int(i), "path": str(paths[i]), "distance": float(d)}
            for rank, (i, d) in enumerate(zip(ids, distances, strict=True), 1)
        ]
        path = str(ranking.query_paths[query])
        yield {"query": path, "query_index": query, "candidates": candidates}

"""The folder of mined pairs: lists for training and validation, and how they came to be."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from murank import OutputError
from murank.files.atomic import (
    Writer,
    check_writable,
    made_folder,
    readable_errors,
    sole_writer,
    write_files,
)
from murank.files.json_object import write_json
from murank.pairs.labelled import Pair, pairs_bytes

RECORD = "mining.json"
_NAMES = (RECORD, "train.json", "val.json", "random_train.json", "random_val.json")


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `write_folder` may not write there."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder")
    there = [name for name in _NAMES if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(f"{folder / there[0]} exists; pass --overwrite or another folder")
    check_writable(folder)


def write_folder(
    folder: Path, parts: Mapping[str, Sequence[Pair]], record: Mapping[str, Any]
) -> None:
    """Write <part>.json of each part and mining.json; older pairs there are replaced.

    All files are written aside before the first takes its place. mining.json goes first and comes
    last: where it is, the files beside it belong together.

    Raises
    ------
    OutputError
        The operating system refuses.
    """
    files = {f"{part}.json": pairs_bytes(pairs) for part, pairs in parts.items()}
    files[RECORD] = write_json(record)
    with readable_errors(folder), made_folder(folder), sole_writer(folder):
        write_files(folder, {name: _writer(data) for name, data in files.items()}, remove=_NAMES)


def _writer(data: bytes) -> Writer:
    return lambda file: file.write(data)

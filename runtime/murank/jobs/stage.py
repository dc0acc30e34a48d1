"""The file that a stage leaves at the end, and fingerprints of what it was made from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from murank._exceptions import InputError
from murank.files.atomic import Writer
from murank.files.npz import open_npz, read_npz
from murank.journal.journal import Stat

Arrays = dict[str, Any]  # name -> array
Record = Mapping[str, Any]  # JSON-ready; its "fingerprint" says what the stage was made from

_FORMAT = 3  # raised when a stage makes something else of the same input
_KEY = "stage"  # of the record in the file


@dataclass(frozen=True)
class StageFile:
    """The file of a finished stage."""

    arrays: Arrays
    record: Record


def fingerprint(*what: object) -> str:
    """Return the sha256 of anything JSON-ready."""
    return hashlib.sha256(json.dumps([_FORMAT, *what]).encode()).hexdigest()


def file_stat(path: Path) -> Stat | None:
    """Return what changes when the file does, or another takes its name; None if it is not there.

    Size, time of the content, and time of the last change of anything, names among it.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stage_writer(arrays: Arrays, record: Record) -> Writer:
    """Return the writer of a stage's file: .npz with the record, and a digest of everything."""
    text = json.dumps(full_record(arrays, record))
    return lambda file: np.savez(file, **{**arrays, _KEY: np.array(text)})


def read_stage(path: Path) -> StageFile | None:
    """Read the file of a stage; None if there is none, or it is not as `stage_writer` left it."""
    try:
        with open_npz(path) as archive:
            names = archive.files
        arrays = read_npz(path, names)
        record = json.loads(str(arrays.pop(_KEY)))
        content = record.pop("content")
    except (InputError, KeyError, ValueError, AttributeError, TypeError, RecursionError):
        return None
    if content != _digest(arrays, record):
        return None
    return StageFile(arrays, record)


def stage_record(path: Path) -> Record | None:
    """Return what the file of a stage says of itself, its digest among it; None if it says nothing.

    The arrays are not read: whether they are as they were is for `read_stage` to say.
    """
    try:
        record = json.loads(str(read_npz(path, [_KEY])[_KEY]))
    except (InputError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def full_record(arrays: Arrays, record: Record) -> Record:
    """Return what the file of a stage would say of itself."""
    whole: Record = json.loads(json.dumps({**record, "content": _digest(arrays, record)}))
    return whole


def _digest(arrays: Arrays, record: Record) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()

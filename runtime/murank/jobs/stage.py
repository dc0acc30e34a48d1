"""What a stage leaves behind: parts while it works, one file at the end, fingerprints of both."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from murank._exceptions import InputError
from murank.files.atomic import Writer, write_files
from murank.files.npz import open_npz, read_npz
from murank.jobs.job_log import JobLog

Arrays = dict[str, Any]  # name -> array
Record = Mapping[str, Any]  # JSON-ready; its "fingerprint" says what the stage was made from

_FORMAT = 2  # raised when a stage makes something else of the same input
_KEY = "stage"  # of the record in the file


@dataclass(frozen=True)
class StageFile:
    """The file of a finished stage."""

    arrays: Arrays
    record: Record


def fingerprint(*what: object) -> str:
    """Return the sha256 of anything JSON-ready."""
    return hashlib.sha256(json.dumps([_FORMAT, *what]).encode()).hexdigest()


def signature(path: Path) -> tuple[str, int, int] | None:
    """Return what changes when the file does: path, size and time; None if it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def stage_writer(arrays: Arrays, record: Record) -> Writer:
    """Return the writer of a stage's file: .npz with the record, and a digest of everything."""
    text = json.dumps({**record, "content": _digest(arrays, record)})
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


def _digest(arrays: Arrays, record: Record) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()


class Parts:
    """Parts of a stage: those that fit are there again after a killed run.

    Part i fits if it was made from what `fingerprints[i]` stands for. Without a folder the parts
    are kept in memory alone.
    """

    def __init__(
        self,
        fingerprints: Sequence[str],
        folder: Path | None = None,
        before_writing: Callable[[], None] = lambda: None,
    ) -> None:
        self._fingerprints = fingerprints
        self._folder = folder
        self._before_writing = before_writing
        self._arrays: dict[int, Arrays] = {}
        for number, wanted in enumerate(fingerprints):
            stage = None if folder is None else read_stage(folder / _file_name(number))
            if stage is not None and stage.record.get("fingerprint") == wanted:
                self._arrays[number] = stage.arrays

    @property
    def missing(self) -> list[int]:
        """Numbers of the parts that are still to be made."""
        return [number for number in range(len(self._fingerprints)) if number not in self._arrays]

    def announce(self, name: str, report: JobLog) -> str:
        """Say if some parts are there already; return "made" or "resumed", for the summary."""
        if not self._arrays:
            return "made"
        done, total = len(self._arrays), len(self._fingerprints)
        report.say(f"{name}: goes on, {done} of {total} parts reused")
        return "resumed"

    def __iter__(self) -> Iterator[Arrays]:
        """Yield the parts made so far, in order."""
        return (self._arrays[number] for number in sorted(self._arrays))

    def save(self, number: int, arrays: Arrays) -> None:
        """Keep a part."""
        self._arrays[number] = arrays
        if self._folder is not None:
            self._before_writing()
            record = {"fingerprint": self._fingerprints[number]}
            write_files(self._folder, {_file_name(number): stage_writer(arrays, record)})

    def merged(self) -> Arrays:
        """Return the arrays of all parts, one after the other."""
        parts = list(self)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _file_name(number: int) -> str:
    return f"{number:06d}.npz"


def batches(
    num_items: int, *, part: int, batch: int, parts: Collection[int]
) -> list[tuple[int, range]]:
    """Return (number of the part, items) of each batch of these parts, none across two parts."""
    return [
        (number, range(first, min(first + batch, stop)))
        for number in sorted(parts)
        for stop in [min((number + 1) * part, num_items)]
        for first in range(number * part, stop, batch)
    ]

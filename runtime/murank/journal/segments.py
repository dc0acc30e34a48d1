"""Append-only files of records: each whole and checked, or as good as not there.

A record is a mark, a checksum, two lengths, a JSON header and the bytes of its arrays. One process
writes a file; whatever it is killed in the middle of is passed over by who reads. A reader that
meets damage goes on at the next mark.
"""

import json
import math
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import OutputError
from murank.files.atomic import readable_errors

SUFFIX = ".seg"
LARGEST = 64 << 20  # bytes of one file
_FSYNC = 1.0  # seconds between two
_MARK = b"\xf3murank3"
_HEAD = struct.Struct("<8sIIQ")  # mark, checksum of all that follows it, bytes of header and arrays
_CHECKED = struct.Struct("<IQ")
_LONGEST_HEADER = 1 << 26
_SMALL = 4 << 20  # bytes of a file that is read rather than mapped


@dataclass(frozen=True)
class SegmentRecord:
    """One thing that was found out."""

    kind: str
    facts: Mapping[str, Any]  # JSON-ready
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return what a file holds of it."""
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        header = {
            "kind": self.kind, "facts": self.facts,
            "arrays": [[name, one.dtype.str, one.shape] for name, one in arrays.items()],
        }  # fmt: skip
        text = json.dumps(header).encode()
        body = b"".join(array.tobytes() for array in arrays.values())
        lengths = _CHECKED.pack(len(text), len(body))
        checksum = zlib.crc32(body, zlib.crc32(text, zlib.crc32(lengths)))
        return _MARK + struct.pack("<I", checksum) + lengths + text + body


class SegmentWriter:
    """Appends records to files of its own, made with the first of them.

    Raises OutputError where the system refuses; the file then ends with the last whole record.
    """

    def __init__(self, folder: Path, before_writing: Callable[[], None]) -> None:
        self._folder = folder
        self._before_writing = before_writing
        self._name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        self._number = 0
        self._file: int | None = None
        self._bytes = 0
        self._synced_at = 0.0
        self._is_dirty = False

    def append(self, records: Iterable[SegmentRecord]) -> None:
        """Write records; they survive this process at once, and the machine within a second."""
        raw = b"".join(record.to_bytes() for record in records)
        if self._file is None or (self._bytes and self._bytes + len(raw) > LARGEST):
            self._next_file()
        assert self._file is not None  # noqa: S101
        with readable_errors(self._folder):
            try:
                _write_all(self._file, raw)
            except BaseException:
                os.ftruncate(self._file, self._bytes)
                raise
            self._bytes += len(raw)
            self._is_dirty = True
            if time.monotonic() - self._synced_at >= _FSYNC:
                self._sync()

    def close(self) -> None:
        """Make everything durable."""
        if self._file is None:
            return
        try:
            with readable_errors(self._folder):
                self._sync()
        finally:
            os.close(self._file)
            self._file = None

    def _sync(self) -> None:
        if self._is_dirty and self._file is not None:
            os.fsync(self._file)
        self._is_dirty, self._synced_at = False, time.monotonic()

    def _next_file(self) -> None:
        self.close()
        self._before_writing()
        with readable_errors(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = self._folder / f"{self._name}-{self._number:04d}{SUFFIX}"
            self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._number += 1
        self._bytes = 0


def read_records(folder: Path) -> Iterator[SegmentRecord]:
    """Yield the whole records of all files, oldest file first; arrays are maps of the files.

    Raises OutputError if a file cannot be read.
    """
    for file in segment_files(folder):
        yield from _records_of(_mapped(file))


def segment_files(folder: Path) -> list[Path]:
    """Return the files of a folder, oldest first; none if it is not there."""
    if not folder.is_dir():
        return []
    files = (file for file in folder.rglob(f"*{SUFFIX}") if file.is_file())
    return sorted(files, key=lambda file: (file.name, file))


def _write_all(file: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(file, view) :]


def _mapped(file: Path) -> memoryview:
    try:
        with file.open("rb") as handle:
            if os.fstat(handle.fileno()).st_size < _SMALL:  # a map keeps a descriptor open
                return memoryview(handle.read())
            return memoryview(mmap(handle.fileno(), 0, access=ACCESS_READ))
    except OSError as error:
        raise OutputError(f"{file}: {error.strerror or error}") from error


def _records_of(raw: memoryview) -> Iterator[SegmentRecord]:
    place = 0
    while place + _HEAD.size <= len(raw):
        found = _record_at(raw, place)
        if found is None:
            place = _next_mark(raw, place + 1)
        else:
            record, place = found
            yield record


def _record_at(raw: memoryview, place: int) -> tuple[SegmentRecord, int] | None:
    """Return the record that starts there and where it ends; None if none does, or no whole one."""
    mark, checksum, header_bytes, body_bytes = _HEAD.unpack_from(raw, place)
    start = place + _HEAD.size
    stop = start + header_bytes + body_bytes
    if mark != _MARK or header_bytes > _LONGEST_HEADER or stop > len(raw):
        return None
    if zlib.crc32(raw[place + 12 : stop]) != checksum:
        return None
    body = start + header_bytes
    try:
        header = json.loads(bytes(raw[start:body]))
        arrays = _arrays(raw[body:stop], header["arrays"])
        return SegmentRecord(str(header["kind"]), dict(header["facts"]), arrays), stop
    except (ValueError, KeyError, TypeError, RecursionError):  # nothing that was written here
        return None


def _arrays(
    raw: memoryview, described: Sequence[tuple[str, str, Sequence[int]]]
) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    place = 0
    for name, dtype, shape in described:
        count = math.prod(shape)
        arrays[name] = np.frombuffer(raw, dtype, count, place).reshape(shape)
        place += arrays[name].nbytes
    return arrays


def _next_mark(raw: memoryview, place: int) -> int:
    """Return where the next mark is; the end if there is none."""
    step = 1 << 20
    while place < len(raw):
        found = bytes(raw[place : place + step + len(_MARK) - 1]).find(_MARK)
        if found >= 0:
            return place + found
        place += step
    return len(raw)

"""Features of shots in the file: the latest as values of their own, older ones sealed together."""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank.gallery.gallery_file import GalleryFile, checked
from murank.gallery.shot_records import F32

CHUNK = 1024  # shots
I64 = NDArray[np.int64]


def unit_vectors(file: GalleryFile, unit: int, *, without: Collection[int] = ()) -> F32:
    """Return the features [n,D] of one unit's shots, in their order."""
    rows = file.all(
        "SELECT feature, chunk, place, shot FROM shots LEFT JOIN recent USING (shot) "
        "WHERE unit = ? ORDER BY shot",
        unit,
    )
    rows = [row[:3] for row in rows if row[3] not in without]
    out = np.empty((len(rows), file.dim), np.float32)
    chunks: dict[int, F32] = {}
    for number, (feature, chunk, place) in enumerate(rows):
        if chunk is None:
            out[number] = np.frombuffer(feature, np.float32)
        else:
            if chunk not in chunks:
                chunks = {chunk: chunk_vectors(file, chunk)}  # one at a time is large enough
            out[number] = chunks[chunk][place]
    return out


def chunk_vectors(file: GalleryFile, chunk: int) -> F32:
    """Return the places [n,D] of a chunk, erased ones 0."""
    (data,) = file.one("SELECT vectors FROM chunks WHERE chunk = ?", chunk)
    return np.frombuffer(data, np.float32).reshape(-1, file.dim)


@dataclass(frozen=True)
class StoredVectors:
    """Features of some shots, in their order."""

    shots: I64  # [n]
    units: I64  # [n] that they belong to
    features: F32  # [n,D]
    damaged: list[int]  # units of which a feature was damaged: it is left out


def all_vectors(file: GalleryFile) -> Iterator[StoredVectors]:
    """Yield all that is stored, in the order of shots, some at a time."""
    for (chunk,) in file.all("SELECT chunk FROM chunks ORDER BY chunk"):
        data, digest = file.one("SELECT vectors, sha256 FROM chunks WHERE chunk = ?", chunk)
        rows = file.all("SELECT place, unit, shot FROM shots WHERE chunk = ? ORDER BY place", chunk)
        places, units, shots = np.array(rows, np.int64).reshape(-1, 3).T
        if hashlib.sha256(data).digest() != digest:
            nothing = np.empty(0, np.int64)
            yield StoredVectors(
                nothing, nothing, np.empty((0, file.dim), np.float32), units.tolist()
            )
            continue
        vectors = np.frombuffer(data, np.float32).reshape(-1, file.dim)
        yield StoredVectors(shots, units, vectors[places], [])
    after = -1
    while rows := file.all(
        "SELECT shot, unit, feature, feature_check FROM recent JOIN shots USING (shot) "
        "WHERE shot > ? ORDER BY shot LIMIT ?", after, CHUNK,
    ):  # fmt: skip
        after = rows[-1][0]
        good = [row for row in rows if checked(row[2]) == row[3]]
        bad = [row[1] for row in rows if checked(row[2]) != row[3]]
        shots, units = np.array([row[:2] for row in good], np.int64).reshape(-1, 2).T
        vectors = np.frombuffer(b"".join(row[2] for row in good), np.float32)
        yield StoredVectors(shots, units, vectors.reshape(-1, file.dim), bad)


def seal(file: GalleryFile) -> int:
    """Move full chunks of the oldest hot shots into one value each; returns how many."""
    sealed = 0
    while file.count("recent") >= 2 * CHUNK:
        with file.transaction():
            rows = file.all(
                "SELECT shot, feature, feature_check FROM recent ORDER BY shot LIMIT ?", CHUNK,
            )  # fmt: skip
            if any(checked(feature) != check for _, feature, check in rows):
                return sealed  # the damaged one stays where verify names it
            data = b"".join(row[1] for row in rows)
            chunk = file.run(
                "INSERT INTO chunks (vectors, sha256) VALUES (?, ?)",
                data, hashlib.sha256(data).digest(),
            ).lastrowid  # fmt: skip
            file.many(
                "UPDATE shots SET chunk = ?, place = ? WHERE shot = ?",
                ((chunk, place, row[0]) for place, row in enumerate(rows)),
            )
            file.run("DELETE FROM recent WHERE shot <= ?", rows[-1][0])
        sealed += 1
    return sealed

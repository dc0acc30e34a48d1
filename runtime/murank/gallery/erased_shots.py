"""Erasure from the file: what names shots, and what is overwritten of them."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.gallery.gallery_file import GalleryFile
from murank.gallery.items import names
from murank.gallery.shot_records import UnitRecord
from murank.gallery.track_pairs import forget_pairs

I64 = NDArray[np.int64]


def named_shots(file: GalleryFile, ids: object, track: object, subject: object) -> I64:
    """Return the numbers of the shots that a caller names in one of three ways."""
    if sum(one is not None for one in (ids, track, subject)) != 1:
        raise InputError("erase takes ids, track or subject, one of them")
    if ids is not None:
        return shots_of(file, ids=names(ids, "ids"))
    if track is not None:
        return shots_of(file, track=names(track, "track")[0])
    return shots_of(file, subject=names(subject, "subject")[0])


def shots_of(
    file: GalleryFile, *, ids: Sequence[str] = (), track: str | None = None,
    subject: str | None = None, before: float | None = None, most: int = -1,
) -> I64:  # fmt: skip
    """Return the numbers of the shots that one of these names; `before` a time, oldest first."""
    if track is not None:
        return file.column("SELECT shot FROM shots JOIN units USING (unit) WHERE track IN", [track])
    if subject is not None:
        return file.column("SELECT shot FROM shots WHERE subject IN", [subject])
    if before is not None:
        rows = file.all(
            "SELECT shot FROM shots WHERE time < ? ORDER BY time, shot LIMIT ?", before, most
        )
        return np.array([row[0] for row in rows], np.int64)
    return file.column("SELECT shot FROM shots WHERE id IN", list(ids))


def units_of(file: GalleryFile, shots: I64) -> I64:
    """Return the units that these shots belong to, ascending, each once."""
    return np.unique(file.column("SELECT unit FROM shots WHERE shot IN", shots.tolist()))


def record_without(file: GalleryFile, record: UnitRecord, erased: Collection[int]) -> UnitRecord:
    """Return a unit as it will be without these shots; it has others."""
    rows = file.all("SELECT shot, time FROM shots WHERE unit = ?", record.unit)
    times = [time for shot, time in rows if shot not in erased]
    return replace(record, first=min(times), last=max(times), shots=len(times))


def erase(file: GalleryFile, shots: I64, generation: int) -> int:
    """Overwrite what is stored of these shots; units lose them, or are gone.

    Returns the pairs of tracks that went with them.
    """
    numbers = shots.tolist()
    units = units_of(file, shots)
    chunks = np.unique(
        file.column("SELECT chunk FROM shots WHERE chunk NOT NULL AND shot IN", numbers)
    )
    file.many("DELETE FROM pictures WHERE shot = ?", ((n,) for n in numbers))
    file.many("DELETE FROM attributes WHERE shot = ?", ((n,) for n in numbers))
    places: dict[int, list[int]] = {chunk: [] for chunk in chunks.tolist()}
    for number in numbers:
        chunk, place = file.one("SELECT chunk, place FROM shots WHERE shot = ?", number)
        if chunk is not None:
            places[chunk].append(place)
    file.many("DELETE FROM recent WHERE shot = ?", ((n,) for n in numbers))
    file.many("DELETE FROM shots WHERE shot = ?", ((n,) for n in numbers))
    for chunk, erased in places.items():
        _overwrite(file, chunk, erased)
    for unit in units.tolist():
        first, last, count = file.one(
            "SELECT min(time), max(time), count(*) FROM shots WHERE unit = ?", unit
        )
        if count:
            file.run(
                "UPDATE units SET first = ?, last = ?, shots = ?, changed = ? WHERE unit = ?",
                first, last, count, generation, unit,
            )  # fmt: skip
        else:
            file.run("DELETE FROM units WHERE unit = ?", unit)
            file.run("INSERT INTO gone VALUES (?, ?)", unit, generation)
    return forget_pairs(file, units.tolist())


def _overwrite(file: GalleryFile, chunk: int, places: Sequence[int]) -> None:
    if file.one("SELECT 1 FROM shots WHERE chunk = ? LIMIT 1", chunk) is None:
        file.run("DELETE FROM chunks WHERE chunk = ?", chunk)
        return
    data, digest = file.one("SELECT vectors, sha256 FROM chunks WHERE chunk = ?", chunk)
    was_whole = hashlib.sha256(data).digest() == digest
    vectors = np.frombuffer(data, np.float32).reshape(-1, file.dim).copy()
    vectors[list(places)] = 0
    data = vectors.tobytes()
    if was_whole:  # a damaged chunk stays one
        digest = hashlib.sha256(data).digest()
    file.run("UPDATE chunks SET vectors = ?, sha256 = ? WHERE chunk = ?", data, digest, chunk)


def erased_counts(file: GalleryFile, shots: I64) -> dict[str, Any]:
    """Return what a receipt says of these shots."""
    numbers = shots.tolist()
    ids = sorted(file.texts("SELECT id FROM shots WHERE shot IN", numbers))
    kinds = file.texts("SELECT jpeg IS NULL FROM pictures WHERE shot IN", numbers)
    tokens = sum(kinds)
    return {
        "ids": tuple(ids), "rows": len(ids), "vectors": len(ids), "crops": len(kinds) - tokens,
        "vision_tokens": tokens,
    }  # fmt: skip

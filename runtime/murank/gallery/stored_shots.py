"""Shots, units and pictures in the file of a gallery."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.gallery.database import damaged
from murank.gallery.gallery_file import GalleryFile, checked
from murank.gallery.gallery_result import GalleryRow
from murank.gallery.shot_records import Picture, Shot, UnitRecord, UnitTable

I64 = NDArray[np.int64]
_UNIT = "SELECT unit, track, camera, first, last, shots FROM units"


def content_of(file: GalleryFile, shot_id: str) -> bytes | None:
    """Return the hash of the item with this id, or None."""
    row = file.one("SELECT content FROM shots WHERE id = ?", shot_id)
    return None if row is None else bytes(row[0])


def add(
    file: GalleryFile, shot: Shot, generation: int, *, best: int
) -> tuple[int, list[str]]:  # fmt: skip
    """Store one, and of its unit the `best` pictures.

    Returns its unit, and the keys of pictures that are no longer kept.
    """
    unit = _unit_for(file, shot, generation)
    number = file.run(
        "INSERT INTO shots (id, unit, time, subject, content) VALUES (?, ?, ?, ?, ?)",
        shot.id, unit, shot.time, shot.subject, shot.content,
    ).lastrowid  # fmt: skip
    feature = shot.feature.tobytes()
    file.run("INSERT INTO recent VALUES (?, ?, ?)", number, feature, checked(feature))
    for key, value in shot.attributes.items():
        file.run("INSERT INTO attributes VALUES (?, ?, ?, ?)", number, key, value, unit)
    if shot.picture is None:
        return unit, []
    return unit, _add_picture(file, number, unit, shot.picture, best)


def _unit_for(file: GalleryFile, shot: Shot, generation: int) -> int:
    row = None
    if shot.track is not None:
        row = file.one(
            "SELECT unit FROM units WHERE track = ? AND camera = ?", shot.track, shot.camera
        )
    if row is None:
        number = file.run(
            "INSERT INTO units (track, camera, first, last, shots, changed) "
            "VALUES (?, ?, ?, ?, 1, ?)",
            shot.track, shot.camera, shot.time, shot.time, generation,
        ).lastrowid  # fmt: skip
        assert number is not None  # noqa: S101  an INSERT has one
        return number
    file.run(
        "UPDATE units SET first = min(first, ?), last = max(last, ?), shots = shots + 1, "
        "changed = ? WHERE unit = ?",
        shot.time, shot.time, generation, row[0],
    )  # fmt: skip
    return int(row[0])


def _add_picture(
    file: GalleryFile, shot: int | None, unit: int, picture: Picture, best: int
) -> list[str]:
    """Store one, drop those that are no longer among the best; returns the keys of these."""
    data = picture.jpeg if picture.jpeg is not None else picture.tokens or b""
    file.run(
        "INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)",
        shot, unit, picture.quality, picture.key, picture.jpeg, picture.tokens, checked(data),
    )  # fmt: skip
    worse = (
        "FROM pictures WHERE unit = ?1 AND shot NOT IN (SELECT shot FROM pictures "
        "WHERE unit = ?1 ORDER BY quality DESC, shot LIMIT ?2)"
    )
    dropped = [row[0] for row in file.all(f"SELECT key {worse}", unit, best)]
    file.run(f"DELETE {worse}", unit, best)
    file.run(
        "INSERT OR IGNORE INTO unrelated SELECT ?1 WHERE NOT EXISTS "
        "(SELECT 1 FROM mu WHERE unit = ?1)", unit,
    )  # fmt: skip
    return [key for key in dropped if key is not None]


def all_units(file: GalleryFile) -> UnitTable:
    """Return all units."""
    rows = file.all("SELECT unit, camera, first, last, shots FROM units ORDER BY unit")
    numbers, cameras, shots = (np.array([row[i] for row in rows], np.int64) for i in (0, 1, 4))
    first, last = (np.array([row[i] for row in rows], np.float64) for i in (2, 3))
    if (
        not (np.isfinite(first) & np.isfinite(last)).all()
        or (np.minimum(cameras, shots - 1) < 0).any()
    ):
        raise damaged(file.path, "it has units that cannot be")
    return UnitTable(numbers, cameras, first, last, shots)


def changed_units(file: GalleryFile, *, after: int) -> list[UnitRecord]:
    """Return the units that were made or changed after a generation, by number."""
    rows = file.all(f"{_UNIT} WHERE changed > ? ORDER BY unit", after)
    return [UnitRecord(*row) for row in rows]


def gone_units(file: GalleryFile, *, after: int) -> list[int]:
    """Return the units that were erased after a generation."""
    return [row[0] for row in file.all("SELECT unit FROM gone WHERE changed > ?", after)]


def unit_record(file: GalleryFile, unit: int) -> UnitRecord:
    """Return one unit that is there."""
    record = find_unit(file, unit)
    assert record is not None  # noqa: S101  the caller has just read its number
    return record


def find_unit(file: GalleryFile, unit: int) -> UnitRecord | None:
    """Return one unit, or None."""
    return find_units(file, [unit]).get(unit)


def find_units(file: GalleryFile, numbers: Sequence[int]) -> dict[int, UnitRecord]:
    """Return those of these units that are there, by number."""
    return {row[0]: UnitRecord(*row) for row in file.rows_in(f"{_UNIT} WHERE unit IN", numbers)}


def units_of_tracks(file: GalleryFile, tracks: Iterable[str]) -> I64:
    """Return the units of these tracks, of all cameras."""
    return file.column("SELECT unit FROM units WHERE track IN", list(tracks))


def units_with(file: GalleryFile, key: str, value: Any) -> I64:
    """Return the units of which a shot has this attribute."""
    rows = file.all("SELECT DISTINCT unit FROM attributes WHERE key = ? AND value = ?", key, value)
    return np.array([row[0] for row in rows], np.int64)


def best_shots(file: GalleryFile, numbers: Sequence[int]) -> dict[int, tuple[str, int | None]]:
    """Return of units their best shot: its id, and its number if there is a picture of it.

    The best is that of the largest and sharpest picture; without pictures the latest.
    """
    latest = file.rows_in(
        "SELECT unit, id, NULL, max(shot) FROM shots WHERE unit IN", numbers, "GROUP BY unit"
    )
    shown = file.rows_in(
        "SELECT pictures.unit, id, shot FROM pictures JOIN shots USING (shot) "
        "WHERE pictures.unit IN", numbers, "ORDER BY quality, shot DESC",
    )  # fmt: skip
    return {row[0]: (row[1], row[2]) for row in (*latest, *shown)}  # the last of a unit stays


def picture(file: GalleryFile, shot: int) -> Picture | None:
    """Return the picture of a shot; None: it is no more, or damaged."""
    return pictures(file, [shot]).get(shot)


def pictures(file: GalleryFile, shots: Sequence[int]) -> dict[int, Picture]:
    """Return the pictures of these shots that are there and not damaged."""
    rows = file.rows_in(
        "SELECT shot, quality, key, jpeg, tokens, picture_check FROM pictures WHERE shot IN", shots
    )
    return {
        shot: Picture(quality, key, jpeg, tokens)
        for shot, quality, key, jpeg, tokens, check in rows
        if checked(jpeg if jpeg is not None else tokens or b"") == check
    }


def pictures_of(file: GalleryFile, shots: I64) -> list[Picture]:
    """Return the pictures that are kept of these shots."""
    return list(pictures(file, shots.tolist()).values())


def row_of(file: GalleryFile, shot_id: str) -> GalleryRow | None:
    """Return what is stored of one shot beside its feature, or None."""
    row = file.one(
        "SELECT shot, camera, time, track, subject FROM shots JOIN units USING (unit) "
        "WHERE id = ?", shot_id,
    )  # fmt: skip
    if row is None:
        return None
    shot, camera, time, track, subject = row
    attributes = dict(file.all("SELECT key, value FROM attributes WHERE shot = ?", shot))
    has_picture = file.one("SELECT 1 FROM pictures WHERE shot = ?", shot) is not None
    return GalleryRow(shot_id, camera, time, track, subject, attributes, has_picture)


def place_of(file: GalleryFile, shot_id: str) -> tuple[int, int] | None:
    """Return a shot's number and unit, or None."""
    row = file.one("SELECT shot, unit FROM shots WHERE id = ?", shot_id)
    return None if row is None else (int(row[0]), int(row[1]))


def crop_of(file: GalleryFile, shot_id: str) -> bytes | None:
    """Return the JPEG that is kept of a shot, or None."""
    place = place_of(file, shot_id)
    kept = None if place is None else picture(file, place[0])
    return None if kept is None else kept.jpeg

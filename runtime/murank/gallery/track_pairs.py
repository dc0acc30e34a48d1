"""Mu of pairs of tracks in the file of a gallery: who was asked about whom, by which shots."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank.gallery.gallery_file import GalleryFile, checked
from murank.rerank.mu import MuDistances

I64 = NDArray[np.int64]
_ENGINE = "mu_sha256"  # the engine that the pairs were asked of; pairs of two are never mixed


@dataclass(frozen=True)
class TrackPair:
    """One answer of the MLLM."""

    unit: int  # the query
    other: int
    shot: int  # shown of the query
    other_shot: int
    mu: float


def pairs_among(file: GalleryFile, units: I64, engine_sha256: str | None) -> MuDistances | None:
    """Return mu [M,N] between units [M], by their places; None: nothing is known of them.

    `engine_sha256` is that of the engine that is asked about the query; None: nobody is.
    """
    made_by = file.meta(_ENGINE)
    if made_by is None or engine_sha256 not in (None, made_by):
        return None
    order = np.argsort(units)
    known = file.rows_in(
        "SELECT unit, other, mu FROM pairs WHERE mu BETWEEN 0 AND 1 AND unit IN", units.tolist()
    )
    if not known:
        return None
    first, second, mu = (np.array(column) for column in zip(*known, strict=True))
    places = np.minimum(np.searchsorted(units[order], second), len(units) - 1)
    here = units[order][places] == second
    rows = order[np.searchsorted(units[order], first[here])]
    return None if not here.any() else _by_row(rows, order[places[here]], mu[here], len(units))


def _by_row(rows: I64, columns: I64, mu: NDArray[np.float64], count: int) -> MuDistances:
    order = np.argsort(rows, kind="stable")
    rows, columns, mu = rows[order], columns[order], mu[order]
    numbers = np.bincount(rows, minlength=count)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
    shape = count, int(numbers.max())
    others, values = np.full(shape, -1), np.zeros(shape)
    others[rows, places], values[rows, places] = columns, mu
    return MuDistances(values, others)


def asked_about(file: GalleryFile, unit: int) -> set[int]:
    """Return the units of which mu with this one is known, whoever was the query."""
    rows = file.all(
        "SELECT other FROM pairs WHERE unit = ?1 UNION SELECT unit FROM pairs WHERE other = ?1",
        unit,
    )
    return {row[0] for row in rows}


def next_unrelated(file: GalleryFile, before: int) -> int | None:
    """Return the newest unit below a number whose nearest are still to be asked about."""
    (unit,) = file.one("SELECT max(unit) FROM unrelated WHERE unit < ?", before)
    return None if unit is None else int(unit)


def store_pairs(file: GalleryFile, unit: int, pairs: Sequence[TrackPair], *, done: bool) -> None:
    """Store what was said of a unit, but for shots that are no more."""
    shots = [shot for pair in pairs for shot in (pair.shot, pair.other_shot)]
    there = set(file.texts("SELECT shot FROM shots WHERE shot IN", shots))
    kept = [pair for pair in pairs if {pair.shot, pair.other_shot} <= there]
    file.many(
        "INSERT OR REPLACE INTO pairs VALUES (?, ?, ?, ?, ?, ?)",
        ((p.unit, p.other, p.shot, p.other_shot, p.mu, checked(_bytes_of(p))) for p in kept),
    )
    if done:
        file.run("DELETE FROM unrelated WHERE unit = ?", unit)


def forget_pairs(file: GalleryFile, units: Sequence[int]) -> int:
    """Erase the pairs of these units that are of shots that are no more; returns how many."""
    erased = 0
    for unit in units:
        for whose in ("unit = ?1 AND shot", "other = ?1 AND other_shot"):
            erased += file.run(
                f"DELETE FROM pairs WHERE {whose} NOT IN "  # noqa: S608  our own words
                "(SELECT shot FROM shots WHERE unit = ?1)", unit,
            ).rowcount  # fmt: skip
        file.run(
            "DELETE FROM unrelated WHERE unit = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM pictures WHERE unit = ?1)", unit,
        )  # fmt: skip
        file.run(
            "INSERT OR IGNORE INTO unrelated SELECT unit FROM pictures WHERE unit = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM pairs WHERE unit = ?1)", unit,
        )  # fmt: skip
    return erased


def pairs_of_engine(file: GalleryFile, sha256: str | None) -> None:
    """Erase the pairs of any other engine, so that all tracks are asked about anew."""
    if file.meta(_ENGINE) == sha256:
        return
    file.run("DELETE FROM pairs")
    file.run("INSERT OR IGNORE INTO unrelated SELECT DISTINCT unit FROM pictures")
    file.run("DELETE FROM meta WHERE key = ?", _ENGINE)
    if sha256 is not None:
        file.set_meta(_ENGINE, sha256)


def damaged_pairs(file: GalleryFile) -> list[str]:
    """Return ids of the queries' shots of pairs that are not as they were written."""
    return [
        shot_id
        for shot_id, *row, check in file.each(
            "SELECT id, pairs.unit, other, pairs.shot, other_shot, mu, pair_check "
            "FROM pairs JOIN shots USING (shot)"
        )
        if checked(_bytes_of(TrackPair(*row))) != check
    ]


def stray_pairs(file: GalleryFile) -> list[str]:
    """Return a line if there are pairs of units or shots that are no more."""
    (count,) = file.one(
        "SELECT count(*) FROM pairs LEFT JOIN shots AS a ON a.shot = pairs.shot "
        "LEFT JOIN shots AS b ON b.shot = other_shot "
        "WHERE a.unit IS NOT pairs.unit OR b.unit IS NOT other"
    )
    return [f"{file.path}: {count} pairs name an erased shot"] if count else []


def _bytes_of(pair: TrackPair) -> bytes:
    return struct.pack("<qqqqd", pair.unit, pair.other, pair.shot, pair.other_shot, pair.mu)

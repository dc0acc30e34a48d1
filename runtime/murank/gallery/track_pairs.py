"""Mu of pairs of tracks in the file of a gallery: who was asked about whom, by which shots."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.engine.engine import Engine
from murank.gallery.gallery_file import GalleryFile, checked
from murank.machine.device_kind import EXACT, products_of
from murank.rerank.mu import MuDistances

I64 = NDArray[np.int64]
ANSWERS = np.dtype([("other", "<i8"), ("shot", "<i8"), ("other_shot", "<i8"), ("mu", "<f8")])
_ENGINE = "mu_sha256"  # who answered (see `who_answers`); answers of two are never mixed


@dataclass(frozen=True)
class TrackPair:
    """One answer of the MLLM about a unit."""

    other: int
    shot: int  # shown of the unit, as the query
    other_shot: int
    mu: float


def who_answers(engine: Engine) -> str:
    """Return the name that an engine's answers are kept under: exact ones and others are apart."""
    products = products_of(engine.providers)
    return engine.sha256 if products == EXACT else f"{engine.sha256} {products}"


def pairs_among(file: GalleryFile, units: I64, asked: str | None) -> MuDistances | None:
    """Return mu [M,N] between units [M], by their places; None: nothing is known of them.

    `asked` is who answers about the query (see `who_answers`); None: nobody does.
    """
    made_by = file.meta(_ENGINE)
    if made_by is None or asked not in (None, made_by):
        return None
    known = _whole(file, units.tolist())
    if not known:
        return None
    answers = np.frombuffer(b"".join(known.values()), ANSWERS)
    first = np.repeat(list(known), [len(one) // ANSWERS.itemsize for one in known.values()])
    order = np.argsort(units)
    ascending = units[order]
    places = np.minimum(np.searchsorted(ascending, answers["other"]), len(units) - 1)
    here = ascending[places] == answers["other"]
    if not here.any():
        return None
    rows = order[np.searchsorted(ascending, first[here])]
    return _by_row(rows, order[places[here]], answers["mu"][here], len(units))


def _by_row(rows: I64, columns: I64, mu: NDArray[np.float64], count: int) -> MuDistances:
    """Bring pairs, those of a row together, into rows of one length; -1: nobody."""
    numbers = np.bincount(rows, minlength=count)
    _, begins, sizes = np.unique(rows, return_index=True, return_counts=True)
    order = np.argsort(begins)
    places = np.arange(len(rows)) - np.repeat(begins[order], sizes[order])
    shape = count, int(numbers.max())
    others, values = np.full(shape, -1), np.zeros(shape)
    others[rows, places], values[rows, places] = columns, mu
    return MuDistances(values, others)


def asked_about(file: GalleryFile, unit: int) -> set[int]:
    """Return the units of which mu with this one is known, whoever was the query."""
    own = _answers_of(file, [unit]).get(unit)
    return {*_owners(file, unit), *([] if own is None else own["other"].tolist())}


def next_unrelated(file: GalleryFile, before: int) -> int | None:
    """Return the newest unit below a number whose nearest are still to be asked about."""
    (unit,) = file.one("SELECT max(unit) FROM unrelated WHERE unit < ?", before)
    return None if unit is None else int(unit)


def store_pairs(file: GalleryFile, unit: int, pairs: Sequence[TrackPair], *, done: bool) -> None:
    """Store what was said of a unit, but for shots that are no more."""
    shots = [shot for pair in pairs for shot in (pair.shot, pair.other_shot)]
    there = set(file.texts("SELECT shot FROM shots WHERE shot IN", shots))
    new = [astuple(pair) for pair in pairs if {pair.shot, pair.other_shot} <= there]
    if new:
        own = _answers_of(file, [unit]).get(unit, np.empty(0, ANSWERS))
        old = own[~np.isin(own["other"], [pair[0] for pair in new])]
        _write(file, unit, np.concatenate([old, np.array(new, ANSWERS)]))
    if done:
        file.run("DELETE FROM unrelated WHERE unit = ?", unit)


def forget_pairs(file: GalleryFile, units: Sequence[int]) -> int:
    """Erase the pairs of these units that are of shots that are no more; returns how many."""
    erased = 0
    for unit in units:
        left = [row[0] for row in file.all("SELECT shot FROM shots WHERE unit = ?", unit)]
        for owner in [unit, *_owners(file, unit)]:
            erased += _keep(file, owner, unit, left)
        file.run(
            "DELETE FROM unrelated WHERE unit = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM pictures WHERE unit = ?1)", unit,
        )  # fmt: skip
        file.run(
            "INSERT OR IGNORE INTO unrelated SELECT unit FROM pictures WHERE unit = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM mu WHERE unit = ?1)", unit,
        )  # fmt: skip
    return erased


def pairs_of_engine(file: GalleryFile, who: str | None) -> None:
    """Erase pairs of anybody else (see `who_answers`), so that all are asked about anew."""
    if file.meta(_ENGINE) == who:
        return
    file.run("DELETE FROM mu")
    file.run("DELETE FROM pairs")
    file.run("INSERT OR IGNORE INTO unrelated SELECT DISTINCT unit FROM pictures")
    file.run("DELETE FROM meta WHERE key = ?", _ENGINE)
    if who is not None:
        file.set_meta(_ENGINE, who)


def damaged_pairs(file: GalleryFile) -> list[str]:
    """Return a shot's id of each unit whose answers are not as they were written."""
    rows = file.each(
        "SELECT answers, answers_check, (SELECT id FROM shots WHERE shots.unit = mu.unit LIMIT 1) "
        "FROM mu"
    )
    return [
        shot_id
        for answers, check, shot_id in rows
        if checked(answers) != check and shot_id is not None
    ]


def stray_pairs(file: GalleryFile) -> list[str]:
    """Return a line if there are answers of units or shots that are no more."""
    units = [row[0] for row in file.all("SELECT unit FROM mu")]
    there = set(file.all("SELECT shot, unit FROM shots")) if units else set()
    known = _answers_of(file, units)
    pairs = [(unit, *one) for unit, answers in known.items() for one in answers.tolist()]
    strays = sum(
        (shot, unit) not in there or (other_shot, other) not in there
        for unit, other, shot, other_shot, _ in pairs
    )
    named = {(other, unit) for unit, other, *_ in pairs}
    listed = {row for row in file.all("SELECT other, unit FROM pairs") if row[1] in known}
    strays += len(named ^ listed)
    return [f"{file.path}: {strays} pairs name an erased shot"] if strays else []


def _whole(file: GalleryFile, units: Sequence[int]) -> dict[int, bytes]:
    """Return what is stored of these units, but for what is damaged."""
    rows = file.rows_in("SELECT unit, answers, answers_check FROM mu WHERE unit IN", units)
    return {unit: answers for unit, answers, check in rows if checked(answers) == check}


def _answers_of(file: GalleryFile, units: Sequence[int]) -> dict[int, NDArray[Any]]:
    return {unit: np.frombuffer(one, ANSWERS) for unit, one in _whole(file, units).items()}


def _owners(file: GalleryFile, other: int) -> list[int]:
    """Return the units that were asked about this one."""
    return [row[0] for row in file.all("SELECT unit FROM pairs WHERE other = ?", other)]


def _keep(file: GalleryFile, owner: int, unit: int, shots: Sequence[int]) -> int:
    """Erase of one's answers those by a unit's shots that are no more, damaged ones all."""
    count = file.one("SELECT count(*) FROM pairs WHERE unit = ?", owner)[0]
    answers = _answers_of(file, [owner]).get(owner, np.empty(0, ANSWERS))
    if owner == unit:
        kept = np.isin(answers["shot"], shots)
    else:
        kept = (answers["other"] != unit) | np.isin(answers["other_shot"], shots)
    if count != kept.sum():
        _write(file, owner, answers[kept])
    return int(count - kept.sum())


def _write(file: GalleryFile, unit: int, answers: NDArray[Any]) -> None:
    file.run("DELETE FROM pairs WHERE unit = ?", unit)
    if not len(answers):
        file.run("DELETE FROM mu WHERE unit = ?", unit)
        return
    data = answers.tobytes()
    file.run("INSERT OR REPLACE INTO mu VALUES (?, ?, ?)", unit, data, checked(data))
    rows = ((other, unit) for other in answers["other"].tolist())
    file.many("INSERT INTO pairs VALUES (?, ?)", rows)

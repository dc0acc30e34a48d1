"""A journal without what is not needed: what was removed from a job is forgotten here, too."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank.files.atomic import readable_errors, sole_writer, sync
from murank.journal.journal import Digest, digests_of_rows
from murank.journal.record_check import is_right
from murank.journal.segments import SegmentRecord, SegmentWriter, read_records, segment_files


def prune(folder: Path, kept: Collection[Digest], paths: Collection[str]) -> None:
    """Write the journal anew with records of these contents and files alone; delete the old files.

    Raises OutputError if the system refuses, or a share is at work: nothing that is kept is lost.
    """
    old = segment_files(folder)
    if not old:
        return
    places = {file.parent for file in old} - {folder}
    wanted, named = frozenset(kept), frozenset(paths)
    with contextlib.ExitStack() as locks:
        for place in sorted(places):
            locks.enter_context(sole_writer(place))
        writer = SegmentWriter(folder, lambda: None)
        try:
            for record in read_records(folder):
                smaller = _pruned(record, wanted, named) if is_right(record) else None
                if smaller is not None:
                    writer.append([smaller])
        finally:
            writer.close()
        with readable_errors(folder):
            for file in old:
                file.unlink()
            for place in places:
                if not any(place.iterdir()):
                    place.rmdir()
            sync(folder)


def _pruned(
    record: SegmentRecord, wanted: frozenset[Digest], named: frozenset[str]
) -> SegmentRecord | None:
    facts, arrays = dict(record.facts), dict(record.arrays)
    if "refused" in arrays:
        keep = _is_wanted(arrays["refused"], wanted)
        arrays["refused"] = arrays["refused"][keep]
        facts["unusable"] = [why for why, kept in zip(facts["unusable"], keep, strict=True) if kept]
    if record.kind == "files":
        keep = _is_wanted(arrays["digests"], wanted)
        keep &= np.array([path in named for path in facts["paths"]], bool)
        arrays = {name: rows[keep] for name, rows in arrays.items()}
        facts["paths"] = [path for path, kept in zip(facts["paths"], keep, strict=True) if kept]
        return SegmentRecord(record.kind, facts, arrays) if keep.any() else None
    if record.kind == "features":
        keep = _is_wanted(arrays["digests"], wanted)
        arrays |= {name: arrays[name][keep] for name in ("digests", "features")}
    elif record.kind == "mu":
        keep = _is_wanted(arrays["images"], wanted)[arrays["pairs"]].all(axis=1)
        places, pairs = np.unique(arrays["pairs"][keep], return_inverse=True)
        kind = arrays["pairs"].dtype
        arrays |= {
            "images": arrays["images"][places], "mu": arrays["mu"][keep],
            "pairs": pairs.reshape(-1, 2).astype(kind),
        }  # fmt: skip
        facts |= _answers_of(facts, keep)
    else:
        return None
    return (
        SegmentRecord(record.kind, facts, arrays) if keep.any() or len(arrays["refused"]) else None
    )


def _answers_of(facts: dict[str, object], keep: NDArray[np.bool_]) -> dict[str, object]:
    """Return places and reasons of the pairs without an answer, among those that are kept."""
    place = np.cumsum(keep) - 1
    said = list(_unanswered(facts))
    return {
        "unanswered": [int(place[old]) for old, _ in said if keep[old]],
        "reasons": [why for old, why in said if keep[old]],
    }


def _unanswered(facts: dict[str, object]) -> Iterator[tuple[int, str]]:
    places, reasons = facts["unanswered"], facts["reasons"]
    assert isinstance(places, list)  # noqa: S101 - as Journal writes it
    assert isinstance(reasons, list)  # noqa: S101
    yield from zip(places, reasons, strict=True)


def _is_wanted(rows: NDArray[np.uint8], wanted: frozenset[Digest]) -> NDArray[np.bool_]:
    return np.array([digest in wanted for digest in digests_of_rows(rows)], bool)

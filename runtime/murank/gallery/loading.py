"""From the file of a gallery to what is searched in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank.gallery.camera_versions import MOST_FITTED, Version
from murank.gallery.gallery_file import GalleryFile
from murank.gallery.shot_records import F32, UnitRecord
from murank.gallery.stored_shots import units
from murank.gallery.unit_features import CameraSums, unit_rows
from murank.gallery.units import Units
from murank.gallery.vectors import all_vectors

I64 = NDArray[np.int64]


@dataclass
class Searched:
    """What is searched: everything of one version."""

    units: Units
    sums: CameraSums
    version: Version
    generation: int
    damaged: list[int]  # units that are left out, for something of them is damaged


def load(file: GalleryFile, version: Version) -> Searched:
    """Read all units, align them, and leave out those of which something is damaged."""
    records = units(file)
    numbers = np.array([one.unit for one in records], np.int64)
    cameras = np.array([one.camera for one in records], np.int64)
    rows, sums = Units(version.dims(file.dim)), CameraSums(file.dim)
    first, last = (np.array([getattr(one, n) for one in records]) for n in ("first", "last"))
    nothing = np.zeros((len(records), 1), np.float32)
    rows.put(numbers, cameras, first, last, np.broadcast_to(nothing, (len(records), rows.dim)))
    seen = np.zeros(len(records), bool)
    for some, features in unit_features(file, records):
        places = np.searchsorted(numbers, some)
        seen[places] = True
        sums.add(cameras[places], features)
        aligned = version.apply(features, cameras[places])
        rows.put(some, cameras[places], first[places], last[places], aligned)
    damaged = numbers[~seen]
    rows.drop(damaged)
    return Searched(rows, sums, version, file.generation, damaged.tolist())


def unit_features(file: GalleryFile, records: list[UnitRecord]) -> Iterator[tuple[I64, F32]]:
    """Yield units [n] and their features [n,D], each unit once its last shot was read."""
    numbers = np.array([one.unit for one in records], np.int64)
    shots = np.array([one.shots for one in records], np.int64)
    left = shots.copy()
    begun: dict[int, F32] = {}
    bad: set[int] = set()
    for stored in all_vectors(file):
        owners, vectors = stored.units, stored.features
        bad.update(stored.damaged)
        places = np.searchsorted(numbers, owners)
        alone = shots[places] == 1
        done = [owners[alone]]
        rows = [unit_rows(vectors[alone])]
        finished: list[int] = []
        for unit, place, row in zip(
            owners[~alone].tolist(), places[~alone].tolist(), vectors[~alone], strict=True
        ):
            total = begun.get(unit)
            if total is None:
                begun[unit] = row.copy()
            else:
                total += row
            left[place] -= 1
            if left[place] == 0:
                finished.append(unit)
        if finished:
            done.append(np.array(finished, np.int64))
            rows.append(unit_rows(np.stack([begun.pop(unit) for unit in finished])))
        some = np.concatenate(done)
        whole = np.array([unit not in bad for unit in some.tolist()], bool)
        yield some[whole], np.concatenate(rows)[whole]


def features_to_fit(file: GalleryFile) -> tuple[F32, I64]:
    """Return features [n,D] and cameras [n] of units, evenly spread where there are many."""
    records = units(file)
    chosen = np.linspace(0, len(records) - 1, min(len(records), MOST_FITTED)).astype(np.int64)
    wanted = np.array([one.unit for one in records], np.int64)[np.unique(chosen)]
    cameras = {one.unit: one.camera for one in records}
    kept_units, kept = [np.empty(0, np.int64)], [np.empty((0, file.dim), np.float32)]
    for some, features in unit_features(file, records):
        mine = np.isin(some, wanted)
        kept_units.append(some[mine])
        kept.append(features[mine])
    found = np.concatenate(kept_units)
    order = np.argsort(found)
    of_camera = np.array([cameras[unit] for unit in found[order].tolist()], np.int64)
    return np.concatenate(kept)[order], of_camera

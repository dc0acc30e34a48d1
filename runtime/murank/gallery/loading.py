"""From the file of a gallery to what is searched in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank.gallery.camera_versions import MOST_FITTED, Version
from murank.gallery.gallery_file import GalleryFile
from murank.gallery.shot_records import F32, UnitTable
from murank.gallery.stored_shots import all_units
from murank.gallery.unit_features import CameraSums, unit_rows
from murank.gallery.unit_index import UnitIndex
from murank.gallery.units import Units
from murank.gallery.vectors import all_vectors

I64 = NDArray[np.int64]


@dataclass
class Searched:
    """What is searched: everything of one version."""

    units: UnitIndex
    sums: CameraSums
    version: Version
    generation: int
    damaged: list[int]  # units that are left out, for something of them is damaged


def load(
    file: GalleryFile, version: Version, new_units: Callable[[int], UnitIndex] = Units
) -> Searched:
    """Read all units, align them, and leave out those of which something is damaged."""
    table = all_units(file)
    rows, sums = new_units(version.dims(file.dim)), CameraSums(file.dim)
    rows.put(table.numbers, table.cameras, table.first, table.last, None)
    seen = np.zeros(len(table.numbers), bool)
    for places, features in unit_features(file, table):
        seen[places] = True
        cameras = table.cameras[places]
        sums.add(cameras, features)
        aligned = version.apply(features, cameras)
        rows.put(table.numbers[places], cameras, table.first[places], table.last[places], aligned)
    damaged = table.numbers[~seen]
    rows.drop(damaged)
    return Searched(rows, sums, version, file.generation, damaged.tolist())


def unit_features(file: GalleryFile, table: UnitTable) -> Iterator[tuple[I64, F32]]:
    """Yield places [n] of units and their features [n,D], each unit once its last shot was read."""
    left = table.shots.copy()
    begun: dict[int, F32] = {}
    damaged = np.zeros(len(left), bool)
    for stored in all_vectors(file):
        damaged[np.searchsorted(table.numbers, stored.damaged)] = True
        places = np.searchsorted(table.numbers, stored.units)
        alone = table.shots[places] == 1
        done, rows = [places[alone]], [unit_rows(stored.features[alone])]
        finished: list[int] = []
        for place, row in zip(places[~alone].tolist(), stored.features[~alone], strict=True):
            total = begun.get(place)
            if total is None:
                begun[place] = row.copy()
            else:
                total += row
            left[place] -= 1
            if left[place] == 0:
                finished.append(place)
        if finished:
            done.append(np.array(finished, np.int64))
            rows.append(unit_rows(np.stack([begun.pop(place) for place in finished])))
        some, features = np.concatenate(done), np.concatenate(rows)
        whole = ~damaged[some]
        yield some[whole], features[whole]


def features_to_fit(file: GalleryFile) -> tuple[F32, I64]:
    """Return features [n,D] and cameras [n] of units, evenly spread where there are many."""
    table = all_units(file)
    count = len(table.numbers)
    chosen = np.linspace(0, count - 1, min(count, MOST_FITTED)).astype(np.int64)
    wanted = np.zeros(count, bool)
    wanted[chosen] = True
    found, kept = [np.empty(0, np.int64)], [np.empty((0, file.dim), np.float32)]
    for places, features in unit_features(file, table):
        mine = wanted[places]
        found.append(places[mine])
        kept.append(features[mine])
    places = np.concatenate(found)
    order = np.argsort(places)
    return np.concatenate(kept)[order], table.cameras[places[order]]

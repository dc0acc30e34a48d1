"""Neighbours by pairs of strips of rows: a pure function each, for processes that share no memory.

A strip is eight tiles high, so that the tiles of all pairs are those of `exact_search`, to the bit;
(distance, index) decides where lists are merged, so the result does not depend on who did what.
"""

import numpy as np
from numpy.typing import NDArray

from murank_kernels._types import F32, I32
from murank_kernels.fusion.changes import Changes
from murank_kernels.tiles.distances import DistanceTiles
from murank_kernels.tiles.lists import Lists
from murank_kernels.tiles.tile_scan import TILE, Corner, TileScan

STRIP = 8 * TILE  # rows of a strip; the last one may have fewer
StripPair = tuple[int, int]
"""Numbers of two strips, the lower one first; or of one, twice."""


def strip_pairs(num_rows: int) -> list[StripPair]:
    """Return all the work: each pair of strips once, and each strip with itself."""
    strips = -(-num_rows // STRIP)
    return [(a, b) for a in range(strips) for b in range(a, strips)]


def search_pair(
    pair: StripPair, features: F32, norms: F32, changes: Changes, cameras: I32, length: int
) -> list[tuple[int, Lists]]:
    """Find the nearest items of the rows of each of two strips in the other one.

    Parameters
    ----------
    features, norms : [N,D], [N] float32; may be memory-mapped, as no more than two strips of them
        are read. `norms` as `squared_norms` makes them.
    changes : fused entries of all rows.
    cameras : [N] int32, or empty: one list a row.
    length : places a list.

    Returns
    -------
    (first row, lists) of each strip, for `Lists.merge` into lists of all rows, in which a row
    stands already.
    """
    bounds = [(s * STRIP, min(len(features), (s + 1) * STRIP)) for s in dict.fromkeys(pair)]
    own = np.concatenate([features[slice(*one)] for one in bounds])
    places = np.concatenate([np.arange(*one) for one in bounds])
    tiles = DistanceTiles(own, norms[places], _changes_of(changes, bounds), np.arange(len(own)))
    lists = Lists.empty(len(own), length, with_cameras=len(cameras) > 0)
    labels = cameras[places] if len(cameras) else np.empty(0, np.int32)
    TileScan(tiles, labels, lists).run(_corners(len(own), is_one=len(bounds) == 1))
    if len(bounds) == 1:
        start = bounds[0][0]
        return [(start, lists.rows(0, len(own), start))]
    (first, stop), (second, _) = bounds
    split = stop - first
    return [  # the items of each are rows of the other
        (first, lists.rows(0, split, second - split)),
        (second, lists.rows(split, len(own), first)),
    ]


def _corners(num_rows: int, *, is_one: bool) -> list[Corner]:
    """Tiles of one strip with itself, or of the first with the second."""
    starts = range(0, num_rows, TILE)
    if is_one:
        return [(row, column) for row in starts for column in starts if column >= row]
    return [(row, column) for row in starts[: STRIP // TILE] for column in starts[STRIP // TILE :]]


def _changes_of(changes: Changes, bounds: list[tuple[int, int]]) -> Changes:
    """Return the entries (row of the first strip, column of the last), numbered as these rows."""
    (start, stop), (low, high) = bounds[0], bounds[-1]
    entries = slice(changes.indptr[start], changes.indptr[stop])
    columns = changes.indices[entries]
    kept = (columns >= low) & (columns < high)
    before = np.concatenate([[0], np.cumsum(kept)])
    num_rows = sum(b - a for a, b in bounds)
    indptr: NDArray[np.int64] = np.full(num_rows + 1, before[-1], np.int64)
    indptr[: stop - start + 1] = before[changes.indptr[start : stop + 1] - changes.indptr[start]]
    offset = low - (0 if len(bounds) == 1 else stop - start)
    return Changes(indptr, columns[kept] - np.int32(offset), changes.values[entries][kept])

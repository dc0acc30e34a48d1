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
Bounds = tuple[F32, F32]
"""The last distance of each row's list [n], and of its list of other cameras; [0] without them."""


def strip_pairs(num_rows: int) -> list[StripPair]:
    """Return all the work: each pair of strips once, and each strip with itself, which comes first.

    All lists are so filled early on, and what is too far for them is soon known.
    """
    strips = -(-num_rows // STRIP)
    return [(a, a + o) for o in range(strips) for a in range(strips - o)]


def bounds_of(pair: StripPair, lists: Lists) -> Bounds:
    """Return what the rows of a pair need not be told of, once all rows have these lists."""
    rows = np.concatenate([np.arange(*one) for one in _rows_of(pair, len(lists.row_max))])
    return lists.distances[rows, -1], lists.other_distances[rows, -1:].reshape(-1)


def search_pair(
    pair: StripPair, features: F32, norms: F32, changes: Changes, cameras: I32, length: int,
    bounds: Bounds | None = None,
) -> list[tuple[int, Lists]]:  # fmt: skip
    """Find the nearest items of the rows of each of two strips in the other one.

    Parameters
    ----------
    features, norms : [N,D], [N] float32; may be memory-mapped, as no more than two strips of them
        are read. `norms` as `squared_norms` makes them.
    changes : fused entries of all rows.
    cameras : [N] int32, or empty: one list a row.
    length : places a list.
    bounds : distances beyond which nothing is wanted, see `bounds_of`; it is quicker so.

    Returns
    -------
    (first row, lists) of each strip, for `Lists.merge` into lists of all rows, in which a row
    stands already.
    """
    strips = _rows_of(pair, len(features))
    own = np.concatenate([features[slice(*one)] for one in strips])
    places = np.concatenate([np.arange(*one) for one in strips])
    tiles = DistanceTiles(own, norms[places], _changes_of(changes, strips), np.arange(len(own)))
    lists = Lists.empty(len(own), length, with_cameras=len(cameras) > 0)
    if bounds is not None:  # places that nobody has taken, before which an item has to stand
        lists.distances[:] = bounds[0][:, None]
        lists.other_distances[:] = bounds[1].reshape(len(own), -1)
    labels = cameras[places] if len(cameras) else np.empty(0, np.int32)
    TileScan(tiles, labels, lists).run(_corners(len(own), is_one=len(strips) == 1))
    if len(strips) == 1:
        start = strips[0][0]
        return [(start, lists.rows(0, len(own), start))]
    (first, stop), (second, _) = strips
    split = stop - first
    return [  # the items of each are rows of the other
        (first, lists.rows(0, split, second - split)),
        (second, lists.rows(split, len(own), first)),
    ]


def _rows_of(pair: StripPair, num_rows: int) -> list[tuple[int, int]]:
    return [(s * STRIP, min(num_rows, (s + 1) * STRIP)) for s in dict.fromkeys(pair)]


def _corners(num_rows: int, *, is_one: bool) -> list[Corner]:
    """Tiles of one strip with itself, or of the first with the second."""
    starts = range(0, num_rows, TILE)
    if is_one:
        return [(row, column) for row in starts for column in starts if column >= row]
    return [(row, column) for row in starts[: STRIP // TILE] for column in starts[STRIP // TILE :]]


def _changes_of(changes: Changes, strips: list[tuple[int, int]]) -> Changes:
    """Return the entries (row of the first strip, column of the last), numbered as these rows."""
    (start, stop), (low, high) = strips[0], strips[-1]
    entries = slice(changes.indptr[start], changes.indptr[stop])
    columns = changes.indices[entries]
    kept = (columns >= low) & (columns < high)
    before = np.concatenate([[0], np.cumsum(kept)])
    num_rows = sum(b - a for a, b in strips)
    indptr: NDArray[np.int64] = np.full(num_rows + 1, before[-1], np.int64)
    indptr[: stop - start + 1] = before[changes.indptr[start : stop + 1] - changes.indptr[start]]
    offset = low - (0 if len(strips) == 1 else stop - start)
    return Changes(indptr, columns[kept] - np.int32(offset), changes.values[entries][kept])

"""One query laid over the gallery's neighbour lists: the lists are never copied.

The query has the number -1, so (distance, index) puts it before a gallery row at the same distance,
as the first row of a joint call would be. A gallery list with the query in it is read through the
query's place there: entries before it are the gallery's own, those behind it stand one further.
"""

from typing import NamedTuple

import numpy as np

from murank_kernels._types import F32, I32, I64
from murank_kernels.codes.reciprocal_sets import reciprocal_sets
from murank_kernels.fusion.changes import Changes
from murank_kernels.loops.compiled import compiled
from murank_kernels.methods.settings import KReciprocalSettings
from murank_kernels.tiles.distances import squared_distance
from murank_kernels.tiles.lists import empty_lists
from murank_kernels.tiles.neighbors import Neighbors
from murank_kernels.tiles.selection import select_rows

QUERY = -1


def sizes_of(settings: KReciprocalSettings, length: int) -> tuple[int, int, int]:
    """Neighbours of R, of its half-size kin, and rows averaged, where lists have `length`."""
    half = round(settings.k1 / 2) + 1
    return min(settings.k1 + 1, length), min(half, length), min(settings.k2, length)


class GalleryRows(NamedTuple):
    """What is known about the gallery alone; shared by all queries, never written to."""

    features: F32  # [G,D]
    near: I32  # [G,W] nearest gallery rows, itself included, ties: lower index first
    near_squared: F32  # [G,W] their squared distances
    row_max: F32  # [G] largest squared distance to a gallery row
    sets: I32  # [G,k] reciprocal neighbours, in any order
    sizes: I32  # [G]
    half_sets: I32  # [G,h] the same, half as many
    half_sizes: I32  # [G]
    change_indptr: I64  # [G+1] pairs whose distance holds mu: see `Changes`
    change_indices: I32
    change_values: F32
    holder_indptr: I64  # [G+1] for each row, the rows that it may be averaged into
    holders: I32


class QueryRow(NamedTuple):
    """One query beside them."""

    squared: F32  # [G] squared distance, with mu where it is known
    place: I32  # [G] where the query stands in each gallery list; past its end: not in it
    own: I32  # [L] the query's list: itself, then its nearest gallery rows
    row_max: np.float32  # largest squared distance


def gallery_rows(
    features: F32, changes: Changes, near: Neighbors, settings: KReciprocalSettings
) -> GalleryRows:
    """Bring together what queries read."""
    num_rows = len(features)
    own = np.arange(num_rows, dtype=np.int32)[:, None]
    averaged = near.indices[:, : settings.k2] if settings.k2 > 1 else own
    order = np.argsort(averaged, axis=None, kind="stable")
    indptr = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(averaged.ravel(), minlength=num_rows), out=indptr[1:])
    holders = (order // averaged.shape[1]).astype(np.int32)
    k, half = sizes_of(settings, near.indices.shape[1])[:2]
    return GalleryRows(
        features, near.indices, near.distances, near.row_max,
        *reciprocal_sets(near.indices, k), *reciprocal_sets(near.indices, half),
        changes.indptr, changes.indices, changes.values, indptr, holders,
    )  # fmt: skip


@compiled
def measure(features: F32, feature: F32, out: F32) -> None:
    """Squared distance of each row to one feature: one read of the gallery."""
    for g in range(features.shape[0]):
        out[g] = squared_distance(features[g], feature)


@compiled
def _places(squared: F32, near_squared: F32, out: I32) -> None:
    """Number of entries of each list that are nearer than the query."""
    width = near_squared.shape[1]
    for g in range(squared.shape[0]):
        a = width
        while a > 0 and near_squared[g, a - 1] >= squared[g]:
            a -= 1
        out[g] = a


def query_row(rows: GalleryRows, squared: F32, length: int) -> QueryRow:
    """Place a query with these squared distances [G] in the lists, which are `length` long."""
    place = np.empty(len(squared), np.int32)
    _places(squared, rows.near_squared, place)
    own = np.full(min(length, len(squared) + 1), QUERY, np.int32)
    nearest, indices = empty_lists(1, len(own) - 1)
    select_rows(squared[None], nearest, indices)
    own[1:] = indices[0]
    return QueryRow(squared, place, own, squared.max())


@compiled
def member(near: I32, place: I32, g: int, a: int) -> int:
    """Entry `a` of the list of gallery row g with the query in it."""
    if a == place[g]:
        return QUERY
    index: int = near[g, a] if a < place[g] else near[g, a - 1]
    return index

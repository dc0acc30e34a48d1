"""ECN with Euclidean distances: dense by definition, so made from tiles, some queries at a time."""

import numpy as np

from murank_kernels._types import F32, I32, I64
from murank_kernels.loops.compiled import compiled
from murank_kernels.tiles.distance_blocks import Finish
from murank_kernels.tiles.distances import DistanceTiles

ROWS_EACH = 512  # queries that share the rows of their expanded neighbours
TILE = 256  # such rows made at a time


@compiled
def _add_neighbor_rows(tile: F32, queries: I64, tile_rows: I64, sums: F32) -> None:
    """sums[queries[p]] += tile[tile_rows[p]] for each p."""
    for p in range(queries.shape[0]):
        for g in range(tile.shape[1]):
            sums[queries[p], g] += tile[tile_rows[p], g]


@compiled
def _add_gathered(distances: F32, expanded: I32, num_query: int, sums: F32) -> None:
    """sums[r,g] += distances of query r to the expanded neighbours of gallery item g."""
    for r in range(distances.shape[0]):
        row = distances[r]
        for g in range(sums.shape[1]):
            total = np.float32(0)
            for a in range(expanded.shape[1]):
                total += row[expanded[num_query + g, a]]
            sums[r, g] += total


def finish(tiles: DistanceTiles, expanded: I32, num_query: int) -> Finish:
    """Prepare the step from squared distances to ECN distances.

    Parameters
    ----------
    expanded : [N,m] int32 expanded neighbours, with repeats
    """
    num_rows, width = expanded.shape

    def step(first_query: int, rows: F32) -> None:
        sums = np.zeros_like(rows)
        own = expanded[first_query : first_query + len(rows)]
        members, member_of = np.unique(own, return_inverse=True)
        order = np.argsort(member_of, axis=None, kind="stable")
        member_of = member_of.ravel()[order]
        queries = order // width
        for start in range(0, len(members), TILE):
            chosen = members[start : start + TILE].astype(np.int64)
            tile = np.sqrt(tiles.tile(chosen, num_query, num_rows))
            low, high = np.searchsorted(member_of, [start, start + TILE])
            _add_neighbor_rows(tile, queries[low:high], member_of[low:high] - start, sums)
        for start in range(0, len(rows), 64):
            some = slice(first_query + start, first_query + min(len(rows), start + 64))
            distances = np.sqrt(tiles.tile(some, 0, num_rows))
            _add_gathered(distances, expanded, num_query, sums[start : start + 64])
        np.sqrt(rows, out=rows)
        np.copyto(rows, sums / np.float32(2 * width), where=sums != 0)

    return step

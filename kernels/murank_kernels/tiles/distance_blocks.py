"""Query x gallery distances made on demand, some query rows at a time."""

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import numpy as np

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, I32
from murank_kernels.checks import validate
from murank_kernels.loops import parallel
from murank_kernels.loops.parallel import Progress
from murank_kernels.tiles.prepare import Prepared
from murank_kernels.tiles.selection import select

BLOCK_BYTES = 96 << 20  # size of a block that iteration yields

Finish = Callable[[int, F32], None]
"""(first query, rows [b,G]): turn fused squared distances into final ones, in place."""


class DistanceBlocks:
    """Distances of Q queries to G gallery items, made when they are asked for.

    The input is already checked. The neighbour search runs at the first use and is kept. Iterate
    for (first query row, distances [b,G] float32) pairs in order: each block is a new array of at
    most about 96 MiB, so Q x G is never held. Distances: small = same person.
    """

    def __init__(
        self,
        ready: Prepared,
        build: Callable[[F32 | None], Finish],
        progress: Progress | None,
        *,
        rows_each: int = 128,
        search_measures: bool = True,
    ) -> None:
        """Keep `build`, which does the work before the first row.

        `build` is given an array [Q,G] where all distances are wanted, and fills it with fused
        squared distances on the way unless `search_measures` is false. A worker makes `rows_each`
        query rows at a time.
        """
        self.num_query = ready.num_query
        self.num_gallery = ready.num_gallery
        self._tiles = ready.tiles()
        # Four parts a block leave a large gallery work for several workers; fewer than 16 rows
        # make BLAS slow, and a single one takes a path of its own that rounds differently.
        most = BLOCK_BYTES // (4 * self.num_gallery) // 4
        self._rows_each = max(16, min(rows_each, most))
        self._search_measures = search_measures
        self._build = build
        self._finish: Finish | None = None
        self._is_small = ready.num_query + ready.num_gallery <= parallel.SMALL
        self._lock = Lock()
        self._progress = progress

    def __iter__(self) -> Iterator[tuple[int, F32]]:
        return self.after(0)

    def after(self, first_query: int) -> Iterator[tuple[int, F32]]:
        """Iterate from a query on that a block begins with, or none: earlier rows are not made.

        Raises InvalidInputError.
        """
        each = self._rows_each
        height = max(1, BLOCK_BYTES // (4 * self.num_gallery * each)) * each
        if first_query % height and first_query != self.num_query:
            raise InvalidInputError(f"first_query is {first_query}: no block begins there")
        return self._blocks_after(first_query, height)

    def _blocks_after(self, first_query: int, height: int) -> Iterator[tuple[int, F32]]:
        if first_query == self.num_query:
            return
        finish, _ = self._built()
        for start, stop in parallel.row_ranges(self.num_query, height):
            if start < first_query:
                continue
            if self._progress is not None:
                self._progress("re-ranking", start, self.num_query)
            yield start, self._block(finish, start, stop)  # no name keeps the last block alive
        if self._progress is not None:
            self._progress("re-ranking", self.num_query, self.num_query)

    def where_made(self) -> Iterator[tuple[int, Any]]:
        """As iteration, with the blocks left where they are made."""
        return iter(self)

    def _block(self, finish: Finish, start: int, stop: int) -> F32:
        rows = np.empty((stop - start, self.num_gallery), np.float32)
        self._fill(finish, start, rows)
        return rows

    def dense(self) -> F32:
        """All distances at once, [Q,G] float32."""
        rows = np.empty((self.num_query, self.num_gallery), np.float32)
        finish, measured = self._built(rows)
        self._fill(finish, 0, rows, measured=measured, progress=self._progress)
        return rows

    def top_k(self, k: int) -> tuple[F32, I32]:
        """The k best of each query: (distances [Q,k], gallery indices [Q,k]), best first.

        Ties: lower index first. Raises InvalidInputError unless 1 <= k <= G.
        """
        k = self._check_top_k(k)
        distances = np.empty((self.num_query, k), np.float32)
        indices = np.empty((self.num_query, k), np.int32)
        for start, rows in self:
            part = slice(start, start + len(rows))
            distances[part], indices[part] = select(rows, k)
            del rows  # before the next block is made
        return distances, indices

    def dense_or_top_k(self, top_k: int | None) -> F32 | tuple[F32, I32]:
        """`dense()` for None, else `top_k(top_k)`."""
        return self.dense() if top_k is None else self.top_k(top_k)

    def _check_top_k(self, top_k: int) -> int:
        value = validate.as_count(top_k, "top_k")
        if value > self.num_gallery:
            raise InvalidInputError(
                f"top_k is {value}, but the gallery has {self.num_gallery} items"
            )
        return value

    def _built(self, query_gallery: F32 | None = None) -> tuple[Finish, bool]:
        """Return the last step, and whether making it has just filled `query_gallery`."""
        with self._lock:
            if self._finish is not None:
                return self._finish, False
            with parallel.alone_if(self._is_small):
                self._finish = self._build(query_gallery)
            return self._finish, query_gallery is not None and self._search_measures

    def _fill(
        self,
        finish: Finish,
        first_query: int,
        rows: F32,
        *,
        measured: bool = False,
        progress: Progress | None = None,
    ) -> None:
        def some(part: tuple[int, int]) -> None:
            start, stop = part
            first, part_rows = first_query + start, rows[start:stop]
            if not measured:
                queries = slice(first, first_query + stop)
                self._tiles.tile(queries, self.num_query, num_rows, out=part_rows)
            finish(first, part_rows)

        num_rows = self.num_query + self.num_gallery
        with parallel.alone_if(self._is_small):
            parts = parallel.row_ranges(len(rows), self._rows_each)
            parallel.run(some, parts, "re-ranking", progress)

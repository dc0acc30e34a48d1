"""Features in memory, in blocks so that they grow without being copied, and their nearest."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the command shows its help without a compiler
    from murank_kernels.tiles.byte_rows import ByteRows


BLOCK = 1 << 14  # rows
_FEW = 16  # blocks that one thread reads before others have begun
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


class FeatureBlocks:
    """Rows [size,P] by their places. Not safe from several threads."""

    def __init__(self, dim: int) -> None:
        self.dim, self.size = dim, 0
        self._blocks: list[tuple[F32, ByteRows]] = []

    @property
    def bytes(self) -> int:
        """What they take in memory."""
        return sum(rows.nbytes + sum(one.nbytes for one in more) for rows, more in self._blocks)

    def grow(self, count: int) -> None:
        """Add rows of 0."""
        from murank_kernels.tiles.byte_rows import ByteRows

        self.size += count
        while len(self._blocks) * BLOCK < self.size:
            rows = np.zeros((BLOCK, self.dim), np.float32)
            self._blocks.append((rows, ByteRows.zeros(BLOCK, self.dim)))

    def read(self, places: I64) -> F32:
        """Copy rows [n,P]."""
        out = np.empty((len(places), self.dim), np.float32)
        for (rows, _), here, inside in self._by_block(places):
            out[here] = rows[inside]
        return out

    def write(self, places: I64, features: F32) -> None:
        """Replace rows by others [n,P], or [1,P] for all."""
        features = np.broadcast_to(features, (len(places), self.dim))
        for (rows, codes), here, inside in self._by_block(places):
            rows[inside] = features[here]
            codes.set(_places(inside), rows)

    def keep(self, places: I64) -> None:
        """Move these rows, ascending, together; the others are overwritten."""
        for start in range(0, len(places), BLOCK):
            part = places[start : start + BLOCK]
            self.write(np.arange(start, start + len(part)), self.read(part))
        self.write(np.arange(len(places), self.size), np.zeros((1, self.dim), np.float32))
        self.size = len(places)
        del self._blocks[-(-self.size // BLOCK) :]

    def clear(self) -> None:
        """Overwrite all."""
        self.keep(np.empty(0, np.int64))

    def nearest(self, feature: F32, wanted: NDArray[np.bool_], most: int) -> tuple[I64, F32]:
        """Return places and Euclidean distances of up to `most` of the rows wanted [size].

        Nearest first, ties: lower place first.
        """
        from murank_kernels.tiles.byte_rows import squared_of

        places = self._in_doubt(feature, wanted, min(most, int(wanted.sum())))
        squared = np.empty(len(places), np.float32)
        for (rows, _), here, inside in self._by_block(places):
            out = squared[here]
            squared_of(rows, _places(inside), feature, out)
            squared[here] = out
        distances = np.sqrt(squared)
        order = np.argsort(distances, kind="stable")[:most]
        return places[order], distances[order]

    def _in_doubt(self, feature: F32, wanted: NDArray[np.bool_], count: int) -> I64:
        """Return, ascending, places that hold the nearest `count`, and as few others as may be."""
        from murank_kernels.loops import parallel
        from murank_kernels.tiles.byte_rows import ByteQuery

        if count == 0:
            return np.empty(0, np.int64)
        low, high = np.empty(self.size, np.float32), np.empty(self.size, np.float32)
        query = ByteQuery.of(feature)

        def some(number: int) -> None:
            part = slice(number * BLOCK, min(self.size, (number + 1) * BLOCK))
            codes = self._blocks[number][1].first(part.stop - part.start)
            codes.bounds(query, wanted[part], low[part], high[part])

        with parallel.alone_if(len(self._blocks) <= _FEW):
            parallel.run(some, range(len(self._blocks)), "nearest")
        limit = np.partition(high, count - 1)[count - 1]
        return np.flatnonzero(low <= limit)

    def _by_block(
        self, places: I64
    ) -> "Iterator[tuple[tuple[F32, ByteRows], slice | NDArray[np.bool_], slice | I64]]":
        """Yield blocks, which of the places lie there, and where in it: slices of a row of them."""
        if not len(places):
            return
        first, count = int(places[0]), len(places)
        if places[-1] - first == count - 1 and (np.diff(places) == 1).all():
            for number in range(first // BLOCK, (first + count - 1) // BLOCK + 1):
                start = max(first, number * BLOCK)
                stop = min(first + count, (number + 1) * BLOCK)
                inside = slice(start - number * BLOCK, stop - number * BLOCK)
                yield self._blocks[number], slice(start - first, stop - first), inside
            return
        numbers = places // BLOCK
        for number in np.unique(numbers).tolist():
            here = numbers == number
            yield self._blocks[number], here, places[here] % BLOCK


def _places(inside: slice | I64) -> I64:
    return np.arange(inside.start, inside.stop) if isinstance(inside, slice) else inside

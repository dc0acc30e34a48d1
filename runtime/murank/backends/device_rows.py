"""Vision tokens that stay on the GPU: a block of rows, handed out one by one, gathered for a run.

What holds a row is an object. Whoever keeps it (the cache, a call in progress) keeps the row; when
nobody does, the row is used for another image. So a row never changes under a call that uses it,
whatever other threads put into the cache meanwhile. Arrays of such objects stand for arrays of
tokens: an object array [q,k] is gathered to [q,k,levels,T,H] on the device. Where the block lies
and how it is copied is the session's (`GraphSession.row_block`).
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.backends.protocol import GraphSession, Memory, RowBlock


class Row:
    """One image's vision tokens in a block on the device."""

    __slots__ = ("place", "rows")

    def __init__(self, rows: "DeviceRows", place: int) -> None:
        self.rows, self.place = rows, place

    def __del__(self) -> None:
        self.rows._free.append(self.place)

    def numpy(self) -> NDArray[Any]:
        """Return a copy [levels,T,H] on the host."""
        values: NDArray[Any] = self.rows.gathered(boxed(self)[None]).numpy()[0, 0]
        return values


class HostRow:
    """One image's vision tokens [levels,T,H] that found no room on the device."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def numpy(self) -> NDArray[Any]:
        """Return the values."""
        return self.values


class DeviceRows:
    """The rows of a block, handed out. Safe from several threads."""

    def __init__(
        self, block: RowBlock, count: int, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.row_bytes = math.prod(shape) * dtype.itemsize
        self._block = block
        self._free = deque(range(count))  # its append and popleft are atomic

    def put(self, batch: Any, count: int) -> list[Row]:
        """Copy the first `count` rows of a value or array [n,levels,T,H].

        Fewer come back if there is no room for more.
        """
        # In order, most are neighbours, which are copied together: all are in a new block, and
        # rows leave the cache as they came.
        taken = [row for _ in range(count) if (row := self._take()) is not None]
        rows = sorted(taken, key=lambda row: row.place)
        for start, stop in _neighbours(rows):
            self._block.write(rows[start].place, batch, start, stop - start)
        return rows

    def gathered(self, rows: NDArray[Any]) -> Any:
        """Return a value [q,k,levels,T,H] on the device of rows [q,k], which are this block's."""
        places = np.array([row.place for row in rows.flat], np.int64).reshape(rows.shape)
        return self._block.gathered(places)

    def _take(self) -> Row | None:
        try:
            return Row(self, self._free.popleft())
        except IndexError:
            return None


def device_rows(
    session: GraphSession,
    taker: Memory,
    *,
    output: str,
    count: int,
    shape: Sequence[int],
    dtype: np.dtype[Any],
) -> DeviceRows | None:
    """Return rows for a graph's outputs, or None where they may as well lie on the host.

    That is: on CPUs, where another type is wanted than the graph gives, and where `taker`, the
    memory of the session that they go to, is another than that of the one which gives them.

    Raises
    ------
    MachineError
        The device has no memory for them.
    """
    if session.memory != taker:
        return None
    block = session.row_block(output, count, shape, dtype)
    return None if block is None else DeviceRows(block, count, shape, dtype)


def boxed(item: object) -> NDArray[Any]:
    """Return an object array [1] of it, never looking inside."""
    array = np.empty(1, object)
    array[0] = item
    return array


def on_host(tokens: Any) -> NDArray[Any]:
    """Return one image's tokens [levels,T,H], whatever form they are kept in, as an array."""
    array: NDArray[Any] = tokens if isinstance(tokens, np.ndarray) else tokens.numpy()
    return array


def as_input(tokens: NDArray[Any]) -> Any:
    """Return tokens [q,k,levels,T,H] as a graph takes them: gathered, if they are rows [q,k]."""
    if tokens.dtype != object:
        return tokens
    first = tokens.flat[0]
    if all(isinstance(row, Row) for row in tokens.flat):
        return first.rows.gathered(tokens)
    host = np.stack([row.numpy() for row in tokens.flat])
    return host.reshape(*tokens.shape, *host.shape[1:])


def _neighbours(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Yield start and stop of rows that lie side by side."""
    start = 0
    for stop in range(1, len(rows) + 1):
        if stop == len(rows) or rows[stop].place != rows[stop - 1].place + 1:
            yield start, stop
            start = stop

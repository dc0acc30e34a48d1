"""Vision tokens that stay on the GPU: a block of rows, handed out one by one, gathered for a run.

What holds a row is an object. Whoever keeps it (the cache, a call in progress) keeps the row; when
nobody does, the row is used for another image. So a row never changes under a call that uses it,
whatever other threads put into the cache meanwhile. Arrays of such objects stand for arrays of
tokens: an object array [q,k] is gathered to [q,k,levels,T,H] on the device.
"""

import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.engine.providers import CUDA
from murank.engine.session import GraphSession, Place, Session, SessionSettings
from murank.engine.tiny_onnx import gather


class Row:
    """One image's vision tokens in a block on the device."""

    __slots__ = ("place", "rows")

    def __init__(self, rows: "DeviceRows", place: int) -> None:
        self.rows, self.place = rows, place

    def __del__(self) -> None:
        self.rows._free.append(self.place)

    def numpy(self) -> NDArray[Any]:
        """Return a copy [levels,T,H] on the host."""
        values: NDArray[Any] = self.rows.gathered(one(self)[None]).numpy()[0, 0]
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
    """A block of rows on the device of a session. Safe from several threads."""

    def __init__(
        self,
        settings: SessionSettings,
        count: int,
        shape: Sequence[int],
        dtype: np.dtype[Any],
    ) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self.row_bytes = math.prod(shape) * dtype.itemsize
        name = Path("vision tokens on the device")
        self._session = Session(name, settings, graph=gather(dtype, shape))
        self._block = self._session.allocate((count, *shape), dtype)
        self._free = deque(range(count))  # its append and popleft are atomic

    def put(self, batch: Any, number: int) -> Row | None:
        """Copy row `number` of a value or array [n,levels,T,H]; None if there is no room."""
        try:
            row = Row(self, self._free.popleft())
        except IndexError:
            return None
        address = self._block.data_ptr() + row.place * self.row_bytes
        place = Place(address, (1, 1, *self.shape), self.dtype)
        self._session.run_into({"rows": batch, "places": np.array([[number]])}, "found", place)
        return row

    def gathered(self, rows: NDArray[Any]) -> Any:
        """Return a value [q,k,levels,T,H] on the device of rows [q,k], which are this block's."""
        places = np.array([row.place for row in rows.flat], np.int64).reshape(rows.shape)
        (found,) = self._session.run({"rows": self._block, "places": places}, ["found"])
        return found


def device_rows(
    session: GraphSession,
    settings: SessionSettings,
    *,
    output: str,
    count: int,
    shape: Sequence[int],
    dtype: np.dtype[Any],
) -> DeviceRows | None:
    """Return a block for a graph's outputs, or None where they may as well lie on the host.

    That is: on CPUs, where another type is wanted than the graph gives, and with other backends
    than onnxruntime's CUDA provider.

    Raises
    ------
    MachineError
        The device has no memory for it.
    """
    if not isinstance(session, Session) or CUDA not in session.providers:
        return None
    if session.device != "cuda" or session.output_type(output) != _onnx_type(dtype):
        return None
    options = {"device_id": str(session.device_id)}
    rows = DeviceRows(SessionSettings([(CUDA, options)], settings.threads), count, shape, dtype)
    return None if rows._session.on_cpu else rows


def one(item: object) -> NDArray[Any]:
    """Return an object array [1] of it, never looking inside."""
    array = np.empty(1, object)
    array[0] = item
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


def _onnx_type(dtype: np.dtype[Any]) -> str:
    return {"float16": "tensor(float16)", "float32": "tensor(float)"}.get(dtype.name, "")

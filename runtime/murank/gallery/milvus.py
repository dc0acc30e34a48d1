"""Features of units in Milvus instead of in memory: for more than one machine holds.

The file stays the truth. What is here is made from it whenever the gallery is opened or aligned,
under a name of its own, and dropped when that is over: it can never be older than the file.
"""

import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, MachineError
from murank.checks.text import shown
from murank.gallery.units import Nearest, UnitRow
from murank.machine.library import pip_install

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
_ROWS = 1000  # in one call
_MOST = 16384  # rows of one answer, by Milvus
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True)
class Milvus:
    """Where features are searched. Raises InputError."""

    uri: str  # of a server, or the path of a file that ends in .db, for milvus-lite
    collection: str  # names of collections begin with it: this gallery's alone
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.uri, str) or not self.uri:
            raise InputError(f"uri must name a Milvus server, got {shown(self.uri)}")
        if not isinstance(self.collection, str) or not _NAME.fullmatch(self.collection):
            raise InputError(
                "collection must be 1 to 100 letters, digits and underlines, no digit first, got "
                f"{shown(self.collection)}"
            )


class MilvusCollections:
    """The collections of one gallery. Raises MachineError without pymilvus or the server."""

    def __init__(self, milvus: Milvus) -> None:
        try:
            import pymilvus
        except ImportError as error:
            raise MachineError(
                f"milvus needs pymilvus: {pip_install('milvus')}, or open the gallery without"
            ) from error
        self._pymilvus, self._uri = pymilvus, milvus.uri
        self._prefix = f"{milvus.collection}_murank_"
        self._client = self._called(pymilvus.MilvusClient, milvus.uri, token=milvus.token)
        for name in self._called(self._client.list_collections):
            if name.startswith(self._prefix):  # of a process that was killed
                self._called(self._client.drop_collection, name)

    def units(self, dim: int) -> "MilvusUnits":
        """Make a collection of rows [dim]."""
        client, types = self._client, self._pymilvus.DataType
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("unit", types.INT64, is_primary=True)
        schema.add_field("camera", types.INT64)
        schema.add_field("first", types.DOUBLE)
        schema.add_field("last", types.DOUBLE)
        schema.add_field("feature", types.FLOAT_VECTOR, dim=dim)
        index = client.prepare_index_params()
        index.add_index("feature", index_type="FLAT", metric_type="L2")  # exact, as in memory
        name = self._prefix + secrets.token_hex(8)
        self._called(
            client.create_collection, name, schema=schema, index_params=index,
            consistency_level="Strong",
        )  # fmt: skip
        return MilvusUnits(dim, lambda what, **how: self._named(what, name, how))

    def close(self) -> None:
        """Let go of the server."""
        self._client.close()

    def _named(self, what: str, name: str, how: dict[str, Any]) -> Any:
        return self._called(getattr(self._client, what), collection_name=name, **how)

    def _called(self, call: Callable[..., Any], *given: Any, **how: Any) -> Any:
        try:
            return call(*given, **how)
        except self._pymilvus.MilvusException as error:
            raise MachineError(f"Milvus at {self._uri}: {error}; see that it runs") from error


class MilvusUnits:
    """What `Units` is, in one collection."""

    overwrites = False  # Milvus lets go of deleted rows when it compacts, in its own time

    def __init__(self, dim: int, call: Callable[..., Any]) -> None:
        """`call(what, **how)` calls a client's method on the collection."""
        self.dim, self._call = dim, call
        self._numbers: set[int] = set()
        self._is_behind = self._is_gone = False

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def bytes(self) -> int:
        """What the rows take in this process's memory: nothing."""
        return 0

    def put(
        self, numbers: I64, cameras: I64, first: NDArray[Any], last: NDArray[Any],
        features: F32 | None,
    ) -> None:  # fmt: skip
        """Add units [n]; those that are there are replaced. Without features nothing is done."""
        if features is None:
            return
        for start in range(0, len(numbers), _ROWS):
            part = slice(start, start + _ROWS)
            columns = (one[part].tolist() for one in (numbers, cameras, first, last))
            rows = [
                {"unit": unit, "camera": camera, "first": begin, "last": end, "feature": feature}
                for unit, camera, begin, end, feature in zip(*columns, features[part], strict=True)
            ]
            self._change("upsert", data=rows)
        self._numbers.update(numbers.tolist())

    def drop(self, numbers: I64) -> None:
        """Take units away; those that are not there are passed."""
        there = [unit for unit in numbers.tolist() if unit in self._numbers]
        for start in range(0, len(there), _ROWS):
            self._change("delete", ids=there[start : start + _ROWS])
        self._numbers.difference_update(there)

    def has(self, unit: int) -> bool:
        """Whether it is there."""
        return unit in self._numbers

    def row(self, unit: int) -> UnitRow:
        """Return one that is there."""
        fields = ["camera", "first", "last", "feature"]
        (row,) = self._ask("get", ids=[unit], output_fields=fields)
        feature = np.array(row["feature"], np.float32)
        return UnitRow(unit, int(row["camera"]), row["first"], row["last"], feature)

    def allowed(
        self,
        cameras: Collection[int] | None,
        since: float | None,
        until: float | None,
        units: I64 | None,
        without: I64 | None,
    ) -> list[str]:
        """Return what must hold of a row that passes, as Milvus writes it."""
        terms = []
        if cameras is not None:
            terms.append(f"camera in {sorted(int(one) for one in set(cameras))}")
        if since is not None:
            terms.append(f"last >= {float(since)!r}")
        if until is not None:
            terms.append(f"first <= {float(until)!r}")
        if units is not None:
            terms.append(f"unit in {units.tolist()}")
        if without is not None and len(without):
            terms.append(f"unit not in {without.tolist()}")
        return terms

    def nearest(self, feature: F32, allowed: list[str], most: int) -> Nearest:
        """Return up to `most` rows that pass, nearest first. Raises InputError for too many."""
        from murank_kernels.tiles.byte_rows import squared_of

        most = min(most, len(self))
        if most > _MOST:
            raise InputError(f"shortlist and top_k must be at most {_MOST} with milvus")
        hits: list[Any] = []
        if most:
            (hits,) = self._ask(
                "search", data=[feature], limit=most, filter=" and ".join(allowed),
                output_fields=["camera", "feature"],
            )  # fmt: skip
        features = np.array([hit["entity"]["feature"] for hit in hits], np.float32)
        features = features.reshape(-1, self.dim)
        units = np.array([hit["unit"] for hit in hits], np.int64)
        cameras = np.array([hit["entity"]["camera"] for hit in hits], np.int64)
        squared = np.empty(len(hits), np.float32)
        squared_of(features, np.arange(len(hits)), feature, squared)  # to the bit as in memory
        order = np.lexsort((units, squared))
        return Nearest(units[order], cameras[order], features[order], np.sqrt(squared[order]))

    def clear(self) -> None:
        """Drop the collection. Twice is once."""
        self._numbers.clear()
        if not self._is_gone:
            self._call("drop_collection")
            self._is_gone = True

    def _change(self, what: str, **how: Any) -> None:
        """Do it, or remember that an answer would be of rows that are no more."""
        was, self._is_behind = self._is_behind, True
        if not was:
            self._call(what, **how)
            self._is_behind = False

    def _ask(self, what: str, **how: Any) -> Any:
        if self._is_behind:
            raise MachineError(
                "a change did not reach Milvus: close the gallery, and open it again"
            )
        return self._call(what, **how)

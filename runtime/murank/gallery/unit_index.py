"""The seam between a gallery and where its features are searched."""

from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from murank.gallery.units import Nearest, UnitRow

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


class UnitIndex(Protocol):
    """What `Units` does in memory and `MilvusUnits` elsewhere; each method is told of there."""

    dim: int
    overwrites: bool  # whether what is dropped is overwritten by then

    def __len__(self) -> int: ...

    @property
    def bytes(self) -> int: ...  # noqa: D102

    def put(  # noqa: D102
        self, numbers: I64, cameras: I64, first: NDArray[Any], last: NDArray[Any],
        features: F32 | None,
    ) -> None: ...  # fmt: skip

    def drop(self, numbers: I64) -> None: ...  # noqa: D102

    def has(self, unit: int) -> bool: ...  # noqa: D102

    def row(self, unit: int) -> UnitRow: ...  # noqa: D102

    def allowed(  # noqa: D102
        self, cameras: Collection[int] | None, since: float | None, until: float | None,
        units: I64 | None, without: I64 | None,
    ) -> Any: ...  # fmt: skip

    def nearest(self, feature: F32, allowed: Any, most: int, /) -> Nearest: ...  # noqa: D102

    def clear(self) -> None: ...  # noqa: D102

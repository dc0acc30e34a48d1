"""Query x gallery distances made on the GPU on demand, some query rows at a time."""

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import numpy as np

from murank_kernels import _parallel
from murank_kernels._blocks import DistanceBlocks
from murank_kernels._parallel import Progress
from murank_kernels._types import F32, I32
from murank_kernels.cuda import _plan
from murank_kernels.cuda._arrays import DeviceArray
from murank_kernels.cuda._neighbors import smallest
from murank_kernels.cuda._prepare import Prepared

Finish = Callable[[int, DeviceArray], None]
"""(first query, rows [b,G]): turn fused squared distances into final ones, in place."""
Build = Callable[[DeviceArray | None], Finish]
"""Do the work before the first row; fill an array [Q,G] with squared distances if one is given."""


class DeviceBlocks(DistanceBlocks):
    """As DistanceBlocks; arrays are where the features came from, NumPy's or CuPy's."""

    def __init__(
        self,
        ready: Prepared,
        build: Build,
        progress: Progress | None,
        *,
        search_measures: bool = True,
    ) -> None:
        """Keep `build`, which runs at the first use."""
        self.num_query = ready.num_query
        self.num_gallery = ready.num_gallery
        self._ready = ready
        self._build_on_device = build
        self._search_measures = search_measures
        self._made: tuple[Finish, DeviceArray | None] | None = None
        self._lock = Lock()
        self._progress = progress

    def __iter__(self) -> Iterator[tuple[int, F32]]:
        for start, rows in self.where_made():
            yield start, self._give(rows)

    def where_made(self) -> Iterator[tuple[int, Any]]:
        """As iteration, with all blocks on the device."""
        gpu = self._ready.gpu
        with gpu.guarded():
            finish, measured = self._finish_and_measured()
            height = _plan.block_rows(gpu.free_bytes(), self.num_gallery)
        for start, stop in _parallel.row_ranges(self.num_query, height):
            self._tell(start)
            with gpu.guarded():
                rows = gpu.xp.empty((stop - start, self.num_gallery), np.float32)
                if measured is None:
                    gallery = (self.num_query, self.num_query + self.num_gallery)
                    self._ready.tile((start, stop), gallery, rows)
                else:
                    rows[...] = measured[start:stop]
                finish(start, rows)
            yield start, gpu.give(rows)
        self._tell(self.num_query)

    def dense(self) -> F32:
        """All distances at once, [Q,G] float32."""
        whole: F32 = self._collected(self.num_gallery, lambda rows: (rows,))[0]
        return whole

    def top_k(self, k: int) -> tuple[F32, I32]:
        """The k best of each query: (distances [Q,k], gallery indices [Q,k]), best first.

        Ties: lower index first. Raises InvalidInputError unless 1 <= k <= G.
        """
        k = self._check_top_k(k)
        distances, indices = self._collected(k, lambda rows: smallest(self._ready.gpu, rows, k))
        return distances, indices

    def _collected(self, width: int, pick: Callable[[Any], tuple[Any, ...]]) -> list[Any]:
        """What is picked from each block, put together where the caller wants it."""
        gpu = self._ready.gpu
        out: list[Any] = []
        for start, rows in self.where_made():
            with gpu.guarded():
                picked = pick(rows)
                if not out:
                    out = [self._room((self.num_query, width), part.dtype) for part in picked]
                for whole, part in zip(out, picked, strict=True):
                    whole[start : start + len(rows)] = part if self._ready.stays else gpu.get(part)
        return [gpu.give(whole) if self._ready.stays else whole for whole in out]

    def _room(self, shape: tuple[int, int], dtype: Any) -> Any:
        return (self._ready.gpu.xp if self._ready.stays else np).empty(shape, dtype)

    def _give(self, rows: DeviceArray) -> Any:
        with self._ready.gpu.guarded():
            return self._ready.give(rows)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress("re-ranking", done, self.num_query)

    def _finish_and_measured(self) -> tuple[Finish, DeviceArray | None]:
        """Return the last step, and the squared distances [Q,G] if the search left them."""
        gpu = self._ready.gpu
        with self._lock:
            if self._made is None:
                measured = None
                shape = (self.num_query, self.num_gallery)
                if self._search_measures and _plan.keeps_measured(gpu.free_bytes(), *shape):
                    measured = gpu.xp.empty(shape, np.float32)
                self._made = self._build_on_device(measured), measured
            return self._made

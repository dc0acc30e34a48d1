"""Query x gallery distances made on the GPU on demand, some query rows at a time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, I32
from murank_kernels.cuda import plan
from murank_kernels.cuda.arrays import DeviceArray
from murank_kernels.cuda.neighbors import nearest_in_gallery, smallest
from murank_kernels.cuda.prepare import DevicePrepared
from murank_kernels.loops import parallel
from murank_kernels.loops.parallel import Progress
from murank_kernels.tiles import distance_blocks
from murank_kernels.tiles.distance_blocks import DistanceBlocks

Finish = Callable[[int, DeviceArray], None]
"""(first query, rows [b,G]): turn fused squared distances into final ones, in place.

It allocates before it writes: where memory does not suffice, rows are as they were.
"""
Build = Callable[[DeviceArray | None], Finish]
"""Do the work before the first row; fill an array [Q,G] with squared distances if one is given."""
Pick = Callable[[int, DeviceArray], tuple[DeviceArray, ...]]
"""(first query, rows [b,G]): what is kept of them."""


@dataclass(frozen=True)
class _Built:
    """What is there before the first row."""

    finish: Finish
    measured: DeviceArray | None  # [Q,G] squared distances that the search left, or final ones
    height: int  # of a block
    final: set[int] = field(default_factory=set)  # first rows of blocks of `measured` that are


class DeviceBlocks(DistanceBlocks):
    """As DistanceBlocks; arrays are where the features came from, NumPy's or CuPy's.

    A block in host memory is as small as on a CPU; one that stays on the device has up to 1 GiB.
    """

    def __init__(
        self,
        ready: DevicePrepared,
        build: Build,
        progress: Progress | None,
        *,
        search_measures: bool = True,
    ) -> None:
        """Keep `build`, which runs at the first use.

        `search_measures`: it fills an array that it is given. It is given none where its products
        are made from rounded factors: the distances of the result are not.
        """
        self.num_query = ready.num_query
        self.num_gallery = ready.num_gallery
        self._ready = ready
        self._build_on_device = build
        self._search_measures = search_measures and not ready.tf32
        self._made: _Built | None = None
        self._lock = Lock()
        self._progress = progress

    def __iter__(self) -> Iterator[tuple[int, F32]]:
        gpu = self._ready.gpu
        each = max(1, distance_blocks.BLOCK_BYTES // (4 * self.num_gallery))
        for first, rows in self.where_made():
            if self._ready.stays:
                with gpu.guarded():
                    own = gpu.xp.array(rows)  # the caller may write to a block
                yield first, gpu.give(own)
                continue
            for start, stop in parallel.row_ranges(len(rows), each):
                with gpu.guarded():
                    part = gpu.get(rows[start:stop])
                yield first + start, part

    def after(self, first_query: int) -> Iterator[tuple[int, F32]]:
        """As iteration: nothing is left out on a GPU, where all is made at once or soon done."""
        if first_query:
            raise InvalidInputError("blocks on a GPU begin with the first query")
        return iter(self)

    def where_made(self) -> Iterator[tuple[int, Any]]:
        """As iteration, with all blocks on the device, and not to be written to."""
        gpu = self._ready.gpu
        with gpu.guarded():
            made = self._built_on_device()
        for start, stop in parallel.row_ranges(self.num_query, made.height):
            self._tell(start)
            yield start, gpu.give(self._rows(made, start, stop))
        self._tell(self.num_query)

    def dense(self) -> F32:
        """All distances at once, [Q,G] float32."""
        blocks = self.where_made()
        whole: F32 = self._collected(self.num_gallery, blocks, lambda _, rows: (rows,))[0]
        return whole

    def top_k(self, k: int) -> tuple[F32, I32]:
        """The k best of each query: (distances [Q,k], gallery indices [Q,k]), best first.

        Ties: lower index first. Raises InvalidInputError unless 1 <= k <= G.
        """
        k = self._check_top_k(k)

        def pick(_first_query: int, rows: DeviceArray) -> tuple[DeviceArray, ...]:
            return smallest(self._ready.gpu, rows, k)

        distances, indices = self._collected(k, self.where_made(), pick)
        return distances, indices

    def _collected(
        self, width: int, blocks: Iterable[tuple[int, DeviceArray]], pick: Pick
    ) -> list[Any]:
        """What is picked from each block, put together where the caller wants it."""
        gpu = self._ready.gpu
        out: list[Any] = []
        for start, rows in blocks:
            with gpu.guarded():
                picked = pick(start, rows)
                if not out:
                    out = [self._room((self.num_query, width), part.dtype) for part in picked]
                for whole, part in zip(out, picked, strict=True):
                    whole[start : start + len(rows)] = part if self._ready.stays else gpu.get(part)
        return [gpu.give(whole) if self._ready.stays else whole for whole in out]

    def _room(self, shape: tuple[int, int], dtype: Any) -> Any:
        return (self._ready.gpu.xp if self._ready.stays else np).empty(shape, dtype)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress("re-ranking", done, self.num_query)

    def _rows(self, made: _Built, start: int, stop: int) -> DeviceArray:
        """Final distances of some queries: where the search left them, or in a new array."""
        gpu, gallery = self._ready.gpu, (self.num_query, self._ready.num_rows)
        if made.measured is None:
            with gpu.guarded():
                rows = gpu.xp.empty((stop - start, self.num_gallery), np.float32)
                self._ready.tile(slice(start, stop), gallery, rows)
                made.finish(start, rows)
            return rows
        # Until they are finished, and that is waited for, nobody else sees them.
        with self._lock, gpu.guarded():
            rows = made.measured[start:stop]
            if start not in made.final:
                made.finish(start, rows)
                made.final.add(start)
        return rows

    def _built_on_device(self) -> _Built:
        """Return what is there before the first row."""
        gpu = self._ready.gpu
        with self._lock:
            if self._made is None:
                measured = None
                shape = (self.num_query, self.num_gallery)
                if self._search_measures and plan.keeps_measured(gpu.free_bytes(), *shape):
                    measured = gpu.xp.empty(shape, np.float32)
                finish = self._build_on_device(measured)
                height = plan.block_rows(gpu.free_bytes(), self.num_gallery)
                self._made = _Built(finish, measured, height)
            return self._made


class PlainBlocks(DeviceBlocks):
    """Distances that no search comes before: with rounded factors, `top_k` is the search."""

    def top_k(self, k: int) -> tuple[F32, I32]:
        """As DeviceBlocks; the candidates of each query may be chosen with rounded factors."""
        k = self._check_top_k(k)
        ready = self._ready
        if not ready.tf32 or k + plan.slack(tf32=True) > plan.LONGEST:
            return super().top_k(k)

        def pick(first_query: int, rows: DeviceArray) -> tuple[DeviceArray, ...]:
            distances, indices = nearest_in_gallery(ready, first_query, rows, k)
            return ready.gpu.xp.sqrt(distances), indices

        distances, indices = self._collected(k, self._rounded(), pick)
        return distances, indices

    def _rounded(self) -> Iterator[tuple[int, DeviceArray]]:
        """Squared distances from products of rounded factors."""
        gpu, gallery = self._ready.gpu, (self.num_query, self._ready.num_rows)
        with gpu.guarded():
            height = plan.block_rows(gpu.free_bytes(), self.num_gallery)
        for start, stop in parallel.row_ranges(self.num_query, height):
            self._tell(start)
            with gpu.guarded():
                rows = gpu.xp.empty((stop - start, self.num_gallery), np.float32)
                self._ready.tile(slice(start, stop), gallery, rows, tf32=True)
            yield start, rows
        self._tell(self.num_query)

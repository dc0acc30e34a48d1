"""Rows on the GPU as a camera alignment works on them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from murank_kernels._types import F32, F64, I64
from murank_kernels.alignment.mutual import Lists, Pairs, Two
from murank_kernels.alignment.rows import AT_ONCE, ROUNDING, Rows
from murank_kernels.cuda import plan
from murank_kernels.cuda.arrays import Arrays, DeviceArray
from murank_kernels.cuda.neighbors import empty_lists, offer, turned
from murank_kernels.cuda.prepare import DevicePrepared, from_device, no_changes, squares
from murank_kernels.cuda.tile_kernels import EVERYBODY
from murank_kernels.loops.parallel import Progress


def unit_rows(gpu: Arrays, features: Any) -> "DeviceRows":
    """Check features [N,D] on the device, and normalise a copy. Raises InvalidInputError."""
    return DeviceRows(gpu, from_device(gpu, features, normalize=True))


@dataclass(frozen=True)
class DeviceRows:
    """Implements Rows with the functions that NumPy and CuPy share."""

    gpu: Arrays
    values: DeviceArray  # [N,D] float32

    @property
    def dim(self) -> int:
        """D."""
        return int(self.values.shape[1])

    def sums(self, places: I64, weights: F64, num_places: int) -> F64:
        """By products with a few rows of weights at a time."""
        xp, total = self.gpu.xp, self.gpu.xp.zeros((num_places, self.dim), np.float64)
        for start in range(0, len(places), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            shares = np.zeros((num_places, len(places[part])))
            shares[places[part], np.arange(shares.shape[1])] = weights[part]
            total += xp.matmul(self.gpu.put(shares), self.values[part].astype(np.float64))
        found: F64 = self.gpu.get(total)
        return found

    def minus(self, offsets: F32, places: I64) -> "DeviceRows":
        """Offsets are brought to the device."""
        away = self.gpu.put(offsets)[self.gpu.put(places)]
        return DeviceRows(self.gpu, self.values - away)

    def unit_or(self, instead: Rows, least: float = ROUNDING) -> "DeviceRows":
        """All at once."""
        assert isinstance(instead, DeviceRows)  # noqa: S101
        xp, lengths = self.gpu.xp, self._lengths()
        alone = lengths <= least
        divisors = xp.where(alone, 1.0, lengths).astype(np.float32)
        scaled = self.values / divisors[:, None]
        out = xp.where(alone[:, None], instead.values, scaled).astype(np.float32)
        return DeviceRows(self.gpu, xp.ascontiguousarray(out))

    def times(self, matrix: F32) -> "DeviceRows":
        """One product in float32."""
        out = self.gpu.xp.empty((len(self.values), matrix.shape[1]), np.float32)
        self.gpu.products(self.values, self.gpu.put(np.ascontiguousarray(matrix.T)), out)
        return DeviceRows(self.gpu, out)

    def lengths(self) -> F64:
        """Copied to the host."""
        found: F64 = self.gpu.get(self._lengths())
        return found

    def _lengths(self) -> DeviceArray:
        return self.gpu.xp.sqrt(squares(self.gpu, self.values))

    def moments(self) -> F64:
        """By float64 products of some rows at a time."""
        return self._moments(
            self.values[start : start + AT_ONCE].astype(np.float64)
            for start in range(0, len(self.values), AT_ONCE)
        )

    def gap_moments(self, pairs: Pairs) -> F64:
        """By float64 products of some pairs at a time."""

        def gaps(part: slice) -> DeviceArray:
            weights = self.gpu.put(np.sqrt(pairs.weights[part]))
            return self._gaps(pairs, part) * weights[:, None]

        return self._moments(gaps(part) for part in _parts(pairs))

    def gap_squares(self, pairs: Pairs) -> F64:
        """Some at a time, copied to the host."""
        found = np.empty(len(pairs.rows))
        for part in _parts(pairs):
            gaps = self._gaps(pairs, part)
            found[part] = self.gpu.get((gaps * gaps).sum(axis=1))
        return found

    def _gaps(self, pairs: Pairs, part: slice) -> DeviceArray:
        first, second = (self.gpu.put(np.ascontiguousarray(rows)) for rows in pairs.rows[part].T)
        return self.values[first].astype(np.float64) - self.values[second]

    def _moments(self, parts: Any) -> F64:
        total = self.gpu.xp.zeros((self.dim, self.dim), np.float64)
        for part in parts:
            total += self.gpu.xp.matmul(part.T, part)
        found: F64 = self.gpu.get(total)
        return found

    def nearest_between(
        self, kept: I64, twos: list[Two], length: int, progress: Progress | None
    ) -> list[tuple[Lists, Lists]]:
        """By tiles of some rows of one camera and all of the other; lists come to the host."""
        xp, num_rows = self.gpu.xp, len(kept)
        rows = xp.ascontiguousarray(self.values[self.gpu.put(kept)])
        nothing = no_changes(self.gpu, num_rows)
        ready = DevicePrepared(self.gpu, rows, 0, nothing, 0, stays=True, tf32=False)
        found = []
        for done, (first, second) in enumerate(twos, 1):
            found.append(_between(ready, first, second, length))
            if progress is not None:
                progress("pairs across cameras", done, len(twos))
        return found

    def give(self) -> Any:
        """The array on the device."""
        return self.gpu.give(self.values)


def _parts(pairs: Pairs) -> list[slice]:
    return [slice(start, start + AT_ONCE) for start in range(0, len(pairs.rows), AT_ONCE)]


def _between(
    ready: DevicePrepared, first: tuple[int, int], second: tuple[int, int], length: int
) -> tuple[Lists, Lists]:
    gpu, width = ready.gpu, second[1] - second[0]
    rows = plan.tile_rows(gpu.free_bytes(), width, length, 2)

    def search(height: int) -> tuple[Lists, Lists]:
        near = empty_lists(gpu, first[1] - first[0], length)
        far = empty_lists(gpu, width, length)
        everybody = (gpu.put(np.zeros(1, np.int32)), EVERYBODY)
        for start in range(*first, height):
            stop = min(start + height, first[1])
            tile = gpu.xp.empty((stop - start, width), np.float32)
            ready.tile(slice(start, stop), second, tile)
            offer(gpu, tile, (start - first[0], second[0]), near, everybody)
            offer(gpu, turned(gpu, tile), (0, start), far, everybody)
        both = [gpu.get(array) for array in (*near, *far)]
        return (both[0], both[1]), (both[2], both[3])

    return plan.with_smaller_tiles(gpu, rows, search)

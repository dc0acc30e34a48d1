"""The first step on the GPU: checked, normalised, fused input."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from murank_kernels._exceptions import InvalidInputError
from murank_kernels.checks import validate
from murank_kernels.checks.host_array import plain_tensor
from murank_kernels.cuda.arrays import Arrays, DeviceArray
from murank_kernels.cuda.gpu import this_gpu
from murank_kernels.cuda.kernel import words
from murank_kernels.cuda.pair_kernels import fused_squares, pair_squares, row_squares
from murank_kernels.cuda.tile_kernels import finish_tile, put_changes
from murank_kernels.fusion.changes import Changes
from murank_kernels.fusion.fusion import NamedPairs
from murank_kernels.tiles.prepare import Checked, MethodInput


@dataclass(frozen=True)
class DevicePrepared:
    """Input that is known to be good, on the device."""

    gpu: Arrays
    features: DeviceArray  # [N,D] float32
    num_query: int
    changes: Changes  # arrays on the device; never empty ones
    num_changes: int
    stays: bool  # results stay on the device
    tf32: bool  # whether a search may round the factors of its products

    @property
    def num_rows(self) -> int:
        """N."""
        return int(self.features.shape[0])

    @property
    def num_gallery(self) -> int:
        """G."""
        return self.num_rows - self.num_query

    @cached_property
    def norms(self) -> DeviceArray:
        """Squared length of each row, [N] float32."""
        return squares(self.gpu, self.features).astype(np.float32)

    @cached_property
    def numbers(self) -> DeviceArray:
        """0 to N - 1, [N] int64."""
        return self.gpu.xp.arange(self.num_rows, dtype=np.int64)

    def give(self, array: DeviceArray) -> Any:
        """A result for the caller: where the features came from."""
        return self.gpu.give(array) if self.stays else self.gpu.get(array)

    def tile(
        self,
        rows: slice | DeviceArray,
        columns: tuple[int, int],
        out: DeviceArray,
        *,
        tf32: bool = False,
    ) -> None:
        """Write fused squared distances of some rows to a range of columns to `out`.

        Rows are a range or int64 numbers. With `tf32` products may come from rounded factors.
        """
        gpu, first = self.gpu, columns[0]
        numbers = self.numbers[rows] if isinstance(rows, slice) else rows
        gpu.products(self.features[rows], self.features[slice(*columns)], out, tf32=tf32)
        threads, height = gpu.threads(256), len(numbers)
        gpu.launch(finish_tile, height, threads, out, self.features, self.norms, numbers, first)
        if self.num_changes:
            gpu.launch(
                put_changes, height, gpu.threads(32), out, numbers, first,
                self.changes.indptr, self.changes.indices, self.changes.values,
            )  # fmt: skip

    def pair_distances(self, indptr: DeviceArray, indices: DeviceArray, out: DeviceArray) -> None:
        """Write the fused squared distance of each stored pair (i, indices[p]) to out[p]."""
        threads = self.gpu.threads(128)
        self.gpu.launch(
            pair_squares, self.num_rows, threads, self.features, indptr, indices,
            self.changes.indptr, self.changes.indices, self.changes.values, self.gpu.lanes, out,
            shared_bytes=words(threads),
        )  # fmt: skip


def prepare(given: MethodInput) -> DevicePrepared:
    """Check everything that the methods have in common, bring it to the GPU, normalise, fuse."""
    gpu = this_gpu()
    checked = replace(given, fusion=given.fusion.on_host(to_host)).checked()
    with gpu.guarded():
        return _on_device(gpu, checked, given)


def to_host(array: Any) -> Any:
    """A copy in host memory of an array on the device; anything else as it is."""
    if not validate.on_device(array):
        return array
    gpu = this_gpu()
    with gpu.guarded():
        return gpu.get(gpu.put(plain_tensor(array)))


def _on_device(gpu: Arrays, checked: Checked, given: MethodInput) -> DevicePrepared:
    stays = validate.on_device(given.features)
    if stays:
        rows = from_device(gpu, given.features, normalize=given.normalize)
    else:
        rows = gpu.put(validate.as_features(given.features, normalize=given.normalize))
    changes, count = _fused_changes(gpu, rows, checked.pairs, checked.alpha)
    tf32 = given.products == "tf32"
    return DevicePrepared(gpu, rows, checked.num_query, changes, count, stays, tf32)


def squares(gpu: Arrays, features: DeviceArray) -> DeviceArray:
    """Squared length of each row, [N] float64."""
    out = gpu.xp.empty(features.shape[0], np.float64)
    threads = gpu.threads(128)
    gpu.launch(row_squares, len(features), threads, features, out, shared_bytes=2 * words(threads))
    return out


def from_device(gpu: Arrays, features: Any, *, normalize: bool) -> DeviceArray:
    """Check features [N,D] that are on the device, and copy them as float32."""
    given = gpu.put(plain_tensor(features))
    if given.dtype.kind != "f":
        raise InvalidInputError(
            f"features must be floating point, got {given.dtype}; convert them to float32"
        )
    rows = gpu.xp.array(given, dtype=np.float32, order="C")  # a copy: the caller's stay as they are
    norms = gpu.xp.sqrt(squares(gpu, rows))
    on_host = gpu.get(norms)
    bad = not np.isfinite(on_host).all()
    validate.check_norms(gpu.get(rows) if bad else rows, on_host, normalize=normalize)
    if normalize:
        rows /= norms[:, None]
    return rows


def _fused_changes(
    gpu: Arrays, features: DeviceArray, named: NamedPairs, alpha: float
) -> tuple[Changes, int]:
    """Fuse mu into the distances of the named pairs; a pair named twice has the mean of its mu."""
    xp, num_rows = gpu.xp, len(features)
    first, second, scores = named
    if not len(first):
        return no_changes(gpu, num_rows), 0
    both = np.concatenate([first * num_rows + second, second * num_rows + first])
    keys = gpu.put(both)
    order = xp.argsort(keys, kind="stable")
    keys, mu = keys[order], gpu.put(np.tile(scores, 2))[order]
    new = xp.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    heads = xp.flatnonzero(new)
    after = xp.minimum(heads + 1, len(keys) - 1)
    mean = xp.where(new[after] | (after == heads), mu[heads], (mu[heads] + mu[after]) / 2)
    rows, columns = keys[heads] // num_rows, keys[heads] % num_rows
    values = xp.empty(len(heads), np.float32)
    threads = gpu.threads(128)
    pairs_each = threads // gpu.lanes
    gpu.launch(
        fused_squares, -(-len(heads) // pairs_each), threads, features, rows, columns, mean, alpha,
        gpu.lanes, values, shared_bytes=2 * words(threads),
    )  # fmt: skip
    indptr = xp.searchsorted(rows, xp.arange(num_rows + 1, dtype=np.int64))
    return Changes(indptr.astype(np.int64), columns.astype(np.int32), values), len(heads)


def no_changes(gpu: Arrays, num_rows: int) -> Changes:
    """Replace nothing; a kernel takes no empty arrays."""
    xp = gpu.xp
    return Changes(xp.zeros(num_rows + 1, np.int64), xp.zeros(1, np.int32), xp.zeros(1, np.float32))

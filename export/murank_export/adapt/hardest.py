"""The most and the least similar images of some queries, a block of queries at a time.

A float32 product of matrices finds everybody who might be among the first k; who is, and in which
order, is decided by similarities summed in float64, one pair like the other. So neither the size of
a block nor the product's rounding decides anything, and equal images are equally similar.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank import InputError
from murank_kernels import smallest_k

BLOCK = 512  # queries; a block against 32,000 images takes 62 MiB
_CHUNK = 1 << 20  # float64 values gathered at a time
_APART = np.float32(4)  # beyond every negated or plain similarity: pairs that do not count

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Want = Literal["most similar", "least similar"]


@dataclass(frozen=True)
class Found:
    """Pairs of rows: those of a query side by side, the wanted first."""

    queries: I64  # [P] ascending
    candidates: I64  # [P]
    similarity: NDArray[np.float64]  # [P] cosine


def unit_rows(features: NDArray[np.floating[Any]]) -> F32:
    """Return rows [N,D] of length 1; lengths are taken in float64.

    Raises
    ------
    InputError
        A row holds NaN or infinity, or is all zero.
    """
    rows = np.empty(features.shape, np.float32)
    for block in _blocks(len(features)):
        given = features[block].astype(np.float64)
        largest = np.abs(given).max(axis=1, initial=0, keepdims=True)
        bad = ~np.isfinite(largest[:, 0]) | (largest[:, 0] == 0)
        if bad.any():
            row = int(np.argmax(bad))
            what = "is all zero" if largest[row, 0] == 0 else "holds NaN or infinity"
            raise InputError(f"features row {block.start + row} {what}; leave that image out")
        given /= largest  # squares of very large or small values would leave float64
        rows[block] = given / np.linalg.norm(given, axis=1, keepdims=True)
    return rows


def similarities(units: F32, left: I64, right: I64) -> NDArray[np.float64]:
    """Cosine [P] of pairs of rows; the same whichever pairs are asked for beside them."""
    found = np.empty(len(left), np.float64)
    step = max(1, _CHUNK // units.shape[1])
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        products = units[left[part]].astype(np.float64) * units[right[part]]
        found[part] = products.sum(axis=1)
    return found


def other_people(units: F32, pids: I64, rows: I64, k: int) -> Iterator[Found]:
    """Find the k most similar of other ids, for every one of `rows` and among them.

    `units` [N,D] and `pids` [N] are of all images, `rows` [n] ascending; fewer than k where fewer
    exist. Yields a block of queries at a time; ties: lower row first.
    """
    columns, ids = units[rows], pids[rows]
    for block in _blocks(len(rows)):
        counts = ids[block, None] != ids[None, :]
        yield _first_k(units, rows[block], rows, columns, counts, k, "most similar")


def same_person(
    units: F32, pids: I64, rows: I64, k: int, camids: I64 | None = None
) -> Iterator[Found]:
    """Find the k least similar of the same id: `other_people`'s counterpart.

    Never the image itself and, given `camids` [N], none of its own camera. Yields the blocks of
    one person after the other.
    """
    order = rows[np.argsort(pids[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(pids[order], prepend=pids[order[:1]] - 1))
    for group in np.split(order, starts[1:]):
        columns = units[group]
        for block in _blocks(len(group)):
            counts = group[block, None] != group[None, :]
            if camids is not None:
                counts &= camids[group[block], None] != camids[None, group]
            yield _first_k(units, group[block], group, columns, counts, k, "least similar")


def _first_k(
    units: F32, queries: I64, rows: I64, columns: F32, counts: NDArray[np.bool_], k: int, want: Want
) -> Found:
    """Search `rows` [n], whose features are `columns` [n,D], where `counts` [q,n] is true."""
    sign = np.float32(-1 if want == "most similar" else 1)
    far = np.matmul(sign * units[queries], columns.T)
    far[~counts] = _APART
    # A product of unit rows is off by D rounding errors at most, here and at the k-th place.
    margin = np.float32(2 * units.shape[1] * np.finfo(np.float32).eps)
    bounds = smallest_k(far, min(k, len(rows)))[0][:, -1:] + margin
    query, row = np.nonzero((far <= bounds) & counts)
    similarity = similarities(units, queries[query], rows[row])
    order = np.lexsort((row, sign * similarity, query))
    place = np.arange(len(order)) - np.searchsorted(query, query)
    order = order[place < k]
    return Found(queries[query[order]], rows[row[order]], similarity[order])


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK):
        yield slice(start, min(count, start + BLOCK))

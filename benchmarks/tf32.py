"""What products="tf32" changes, measured on a CPU by rounding the factors of the search.

    python benchmarks/tf32.py                          generated features, two sizes
    python benchmarks/tf32.py --features real.npz      and those of a file: features, paths, pids,
                                                       camids, as `murank` reads it

One line for each input and slack (entries of a list beyond those needed; the program has 16). Sums
are the CPU's, in float32, and factors are rounded to nearest; a tensor core adds in another order,
and one that truncates factors is off by up to four times as much.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gpu.inputs import Size, made_inputs
from numpy.typing import NDArray

from murank_kernels import evaluate_rank, k_reciprocal_blocks, smallest_k
from murank_kernels.cuda.simulated import as_tf32
from murank_kernels.fusion.changes import Changes
from murank_kernels.tiles import distances as cpu_distances
from murank_kernels.tiles import neighbors as cpu_neighbors
from murank_kernels.tiles import search as cpu_search
from murank_kernels.tiles.distances import DistanceTiles
from murank_kernels.tiles.prepare import MethodInput, prepare

F32 = NDArray[np.float32]
SIZES = {"generated, 4000": Size(800, 3200, 300, 6), "generated, 9000": Size(1500, 7500, 700, 6)}
NOISE = 0.06  # added to each value of generated features, which would be too easy
SETTINGS: dict[str, Any] = {"k1": 20, "k2": 6, "squared": True}  # the field's
TOP = 100
SLACKS = (0, 4, 16)


@dataclass(frozen=True)
class Data:
    """Features, the queries first, and labels of all rows."""

    features: F32
    num_query: int
    pids: NDArray[np.int64]
    camids: NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """What came of one search."""

    lists: NDArray[np.int32]  # [N, k1 + 1]
    row_max: F32
    top: NDArray[np.int32]  # [Q, TOP] after re-ranking
    mean_ap: float


class RoundedTiles:
    """As DistanceTiles, but for the factors of products."""

    def __init__(self, features: F32, changes: Changes) -> None:
        self._exact = DistanceTiles.of(features, changes)
        self._rounded = as_tf32(features)

    def tile(self, rows: slice, first_column: int, stop_column: int, out: F32) -> F32:
        """Squared distances of a range of rows to a range of columns."""
        exact = self._exact
        np.matmul(self._rounded[rows], self._rounded[first_column:stop_column].T, out=out)
        changes = (exact.changes.indptr, exact.changes.indices, exact.changes.values)
        numbers = exact._numbers[rows]
        cpu_distances._finish_tile(
            out, exact.features, exact.norms, numbers, first_column, *changes
        )
        return out


class _Rounding:
    """Stands in for the class DistanceTiles in the search."""

    of = RoundedTiles


@contextmanager
def rounded_search(slack: int) -> Iterator[None]:
    """Search with rounded factors and so many entries to spare; nothing else is rounded."""
    tiles: Any = cpu_search
    lists: Any = cpu_neighbors
    before = tiles.DistanceTiles, lists.SLACK
    tiles.DistanceTiles, lists.SLACK = _Rounding, slack
    try:
        yield
    finally:
        tiles.DistanceTiles, lists.SLACK = before


def search(data: Data) -> Found:
    """Neighbour lists, and what re-ranking makes of them."""
    ready = prepare(MethodInput(data.features, data.num_query))
    length = SETTINGS["k1"] + 1
    near = cpu_neighbors.neighbors(ready.features, length, ready.changes, num_query=data.num_query)
    blocks = k_reciprocal_blocks(data.features, data.num_query, **SETTINGS)
    distances = np.concatenate([rows for _, rows in blocks])  # made anew, not by the search
    q = data.num_query
    labels = (data.pids[:q], data.pids[q:], data.camids[:q], data.camids[q:])
    _, top = smallest_k(distances, min(TOP, distances.shape[1]))
    return Found(near.indices, near.row_max, top, evaluate_rank(distances, *labels).mAP)


def top_of_simple(data: Data, slack: int) -> float:
    """Share of queries whose nearest 100 differ, where rounded products choose the candidates."""
    rows = data.features / np.linalg.norm(data.features, axis=1, keepdims=True)
    queries, gallery = rows[: data.num_query], rows[data.num_query :]
    rounded = as_tf32(queries) @ as_tf32(gallery).T
    chosen = np.argsort(-rounded, axis=1, kind="stable")[:, : TOP + slack]
    desired = np.argsort(-(queries.astype(np.float64) @ gallery.T), axis=1, kind="stable")[:, :TOP]
    found = [np.isin(d, c).all() for d, c in zip(desired, chosen, strict=True)]
    return 1 - float(np.mean(found))


def other_sets(one: NDArray[np.int32], other: NDArray[np.int32]) -> float:
    """Share of rows that do not hold the same items."""
    return float((np.sort(one) != np.sort(other)).any(axis=1).mean())


def report(name: str, data: Data) -> None:
    """Print the lines of one input."""
    plain = search(data)
    for slack in SLACKS:
        with rounded_search(slack):
            found = search(data)
        off = np.abs(found.row_max / plain.row_max - 1).max()
        print(
            f"| {name} | {slack} | {other_sets(found.lists, plain.lists):.3%} | {off:.0e} "
            f"| {top_of_simple(data, slack):.2%} | {other_sets(found.top, plain.top):.2%} "
            f"| {(found.top != plain.top).any(axis=1).mean():.2%} "
            f"| {100 * plain.mean_ap:.3f} | {100 * found.mean_ap:.3f} |",
            flush=True,
        )


def read(path: Path) -> Data:
    """Features of a file; paths that hold "query" are the queries."""
    with np.load(path) as stored:
        num_query = sum("query" in str(name) for name in stored["paths"])
        labels = (stored[key].astype(np.int64) for key in ("pids", "camids"))
        return Data(stored["features"].astype(np.float32), num_query, *labels)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--features", type=Path, nargs="*", default=[], help="npz files")
    arguments = parser.parse_args()
    missing = [str(file) for file in arguments.features if not file.is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")
    print(
        "| input | slack | other members in a list of 21 | largest distance off by | simple: other "
        "nearest 100 | k-reciprocal: other members of the first 100 | other order | mAP float32 "
        "| mAP tf32 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for path in arguments.features:
        report(path.stem, read(path))
    for name, size in SIZES.items():
        made = made_inputs(size)
        noise = np.random.default_rng(8).standard_normal(made.features.shape, np.float32)
        features = made.features + np.float32(NOISE) * noise
        report(name, Data(features, made.num_query, made.pids, made.camids))


if __name__ == "__main__":
    main()

"""Approximate neighbours from an inverted file (faiss), as exact as it is asked to be.

How many cells a row is compared with is not guessed: it grows until the neighbours of 1,000 rows,
which are compared with all, are found.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.images.arguments import check_number
from murank.machine.library import library, pip_install

RECALL = 0.99
_MEASURED = 1000  # rows compared with all
_LEAST = 39  # rows a cell is trained on, which faiss wants, and no more
_ROUNDS = 6  # of k-means
_MOST_CELLS = 0.5  # share of them beyond which comparing with all is surely no slower
_FAR_EACH, _FAR = 8, 4096  # farthest items of a measured row; of all of them, those that are tried


@dataclass(frozen=True)
class IvfTold:
    """How an approximate search went."""

    recall: float  # share of the nearest that was found, of `rows_measured` rows
    rows_measured: int
    nlist: int  # cells
    nprobe: int  # cells that a row was compared with
    largest_distance_off: float  # of rows that were not looked at: mean share that is missing

    def to_json(self) -> dict[str, Any]:
        """What a summary says."""
        return {"method": "ivf", **vars(self)}


class IvfSearch:
    """A search for `k_reciprocal_blocks(..., search=...)` and `ecn_blocks`; `told` says how it was.

    The same features give the same lists, whatever the number of threads.
    """

    def __init__(self, recall: float = RECALL, *, seed: int = 0) -> None:
        """Keep settings.

        Raises
        ------
        InputError
            `recall` is no fraction.
        MachineError
            faiss (the extra `faiss`) is not installed.
        """
        self.recall = check_recall(recall)
        self.told: IvfTold | None = None
        self._seed = seed
        self._faiss = faiss()

    def __call__(self, work: Any) -> Any:
        """Find lists and largest distances. InputError: they cannot be found as asked."""
        from murank_kernels.tiles import found_lists
        from murank_kernels.tiles.neighbors import SLACK

        if len(work.cameras):
            raise InputError("ivf finds one list a row: ca-jaccard needs exact neighbours")
        measured = self._measured_rows(len(work.features))
        exact = found_lists.exact_rows(work, measured)
        index, nlist = self._index(work.features)
        wanted = max(2, work.length - SLACK)  # with the row itself, which says nothing
        recall, nprobe = self._enough(index, nlist, work, measured, exact, wanted)
        lists = found_lists.lists_of(work, self._near(index, nprobe))
        off = _put_largest(work, lists, measured, exact)
        found_lists.put_rows(lists, measured, exact)
        self.told = IvfTold(round(recall, 6), len(measured), nlist, nprobe, round(off, 6))
        return lists

    def _measured_rows(self, num_rows: int) -> NDArray[np.int64]:
        random = np.random.default_rng(self._seed)
        return random.permutation(num_rows)[:_MEASURED]

    def _index(self, features: NDArray[np.float32]) -> tuple[Any, int]:
        """Return an index of all rows, and the number of its cells."""
        api, (num_rows, dim) = self._faiss, features.shape
        nlist = max(1, min(int(4 * num_rows**0.5), num_rows // _LEAST))
        api.omp_set_num_threads(1)  # products of several threads may round differently
        index = api.IndexIVFFlat(api.IndexFlatL2(dim), dim, nlist)
        index.cp.seed, index.cp.niter = self._seed + 1, _ROUNDS
        index.cp.max_points_per_centroid = _LEAST
        index.train(features)
        index.add(features)
        return index, nlist

    def _near(self, index: Any, nprobe: int) -> Any:
        """Return what finds the nearest of some rows; called from several threads."""
        api = self._faiss

        def near(rows: NDArray[np.float32], count: int) -> NDArray[np.int64]:
            api.omp_set_num_threads(1)  # of this thread
            settings = api.SearchParametersIVF(nprobe=nprobe)
            found: NDArray[np.int64] = index.search(rows, count, params=settings)[1]
            return found

        return near

    def _enough(
        self, index: Any, nlist: int, work: Any, measured: NDArray[np.int64], exact: Any,
        wanted: int,
    ) -> tuple[float, int]:  # fmt: skip
        """Return the recall, and the number of cells that it takes."""
        from murank_kernels.tiles import found_lists

        nprobe = 1
        most = max(1, int(_MOST_CELLS * nlist))
        while True:
            found = found_lists.lists_of_some(work, measured, self._near(index, nprobe)).distances
            recall = _recall(found[:, 1:wanted], exact.distances[:, 1:wanted])
            if recall >= self.recall:
                return recall, nprobe
            if nprobe == most:
                raise InputError(
                    f"ivf finds {recall:.4f} of the nearest neighbours in {most} of {nlist} cells, "
                    f"less than recall={self.recall:g}, and with more cells exact neighbours "
                    "are faster: take those, or a lower recall="
                )
            nprobe = min(most, nprobe + max(1, nprobe // 2))


def faiss() -> Any:
    """Import it. Raises MachineError: it is not installed."""
    return library("faiss", install=pip_install("faiss"))


def check_recall(recall: Any) -> float:
    """Return a recall in (0, 1]. Raises InputError."""
    number = check_number(recall, "recall", above=0)
    if number > 1:
        raise InputError(f"recall must be at most 1, got {number:g}")
    return number


def _recall(found: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Return the share of places that hold an item no farther than the last one should be.

    By distances: among items that are equally far, any will do.
    """
    bound = exact[:, -1:] * np.float32(1 + 1e-5) + np.float32(1e-6)  # a product's rounding
    return float((found <= bound).mean())


def _put_largest(work: Any, lists: Any, measured: NDArray[np.int64], exact: Any) -> float:
    """Fill in the largest distances; return by how much they are too small, on the average.

    That is measured on rows that were not asked for far items.
    """
    from murank_kernels.tiles import found_lists

    asked, held_out = measured[: len(measured) // 2 + 1], measured[len(measured) // 2 + 1 :]
    known = exact.row_max[len(asked) :]
    tried = found_lists.largest_among(work, found_lists.far_items(work, asked, _FAR_EACH, _FAR))
    share = np.sqrt(tried[held_out] / np.maximum(known, np.finfo(np.float32).tiny))
    every = found_lists.far_items(work, measured, _FAR_EACH, _FAR)
    largest = np.maximum(tried, found_lists.largest_among(work, every))
    np.maximum(lists.row_max, largest, out=lists.row_max)
    return float(np.clip(1 - share, 0, 1).mean()) if len(held_out) else 0.0

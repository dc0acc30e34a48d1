"""Distances from elsewhere: a matrix of queries and gallery, and their labels."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.labels import Labels
from murank.datasets.named_ids import check_alike
from murank.files.npz import check_array, read_npz
from murank.rerank.features import LABELS, customary, named_arrays


class Distances(NamedTuple):
    """Distances between queries and gallery, small = same person."""

    distmat: NDArray[Any]  # [Q,G]
    labels: Labels


def load_distances(path: str | os.PathLike[str]) -> Distances:
    """Read an .npz with `distmat` [Q,G], `pids` [Q+G] and, where known, `camids` and `clothes`.

    Labels may be in halves (`q_pids` [Q], `g_pids` [G]), and all may have the names that other
    toolkits give them. Raises InputError.
    """
    file = Path(path)
    named = named_arrays(file)
    if "distmat" not in named.sources:
        read_npz(file, ("distmat",))  # says what it holds
    arrays = named.joined(read_npz(file, named.wanted))
    arrays, _ = customary(arrays, file)
    distmat = arrays["distmat"]
    check_array(distmat, f"{file}: distmat", kinds="f", shape=(None, None))
    if "pids" not in arrays:
        raise InputError(f"{file} has no pids to evaluate by")
    check_array(arrays["pids"], f"{file}: pids", kinds="iu", shape=(None,))
    count = arrays.get("num_query", np.array(len(distmat)))
    check_array(count, f"{file}: num_query", kinds="iu", shape=())
    num_query = int(count)
    total = len(arrays["pids"])
    if distmat.shape != (num_query, total - num_query):
        called = " and ".join(named.sources["pids"])
        raise InputError(
            f"{file}: distmat must be queries x gallery, which {called} number {total} in all, but "
            f"it is {list(distmat.shape)}"
        )
    halves: list[Any] = []
    for key in LABELS:
        ids = arrays.get(key)
        if ids is None:
            halves += [None, None]
            continue
        called = " and ".join(named.sources[key])
        check_array(ids, f"{file}: {called}", kinds="iu", shape=(total,))
        check_alike(ids, num_query, f"{file}: {called}")
        halves += [ids[:num_query], ids[num_query:]]
    return Distances(distmat, Labels(*halves))

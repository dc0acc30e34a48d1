"""Where matches stand, for distances that are on the device."""

from typing import Any

import numpy as np

from murank_kernels._exceptions import InvalidInputError
from murank_kernels.cuda.gpu import this_gpu
from murank_kernels.cuda.kernel import words
from murank_kernels.cuda.rank_kernels import places
from murank_kernels.evaluation.match_places import Asked, MatchPlaces


def is_float32_matrix(array: Any) -> bool:
    """Whether an array on the device is what the kernel takes; float64 would lose its ties."""
    told = array.__cuda_array_interface__
    return len(told["shape"]) == 2 and 0 not in told["shape"] and told["typestr"] == "<f4"


def match_places(rows: Any, asked: Asked) -> MatchPlaces:
    """As on a CPU, for float32 rows [b,G] on the device; the result is in host memory."""
    gpu = this_gpu()
    indptr, matches = asked.indptr, asked.matches
    queries = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    with gpu.guarded():
        on_device = gpu.put(rows)
        if bool(gpu.xp.isnan(on_device.min())):
            raise InvalidInputError("distmat holds NaN; every pair needs a distance")
        if not len(matches):
            return MatchPlaces(indptr, matches, np.empty(0, np.int64))
        dropped = asked.dropped if len(asked.dropped) else np.zeros(1, np.int64)  # has an address
        given = [gpu.put(a) for a in (queries, matches, asked.drop_indptr, dropped)]
        out = gpu.xp.empty(len(matches), np.int64)
        threads = gpu.threads(128)
        gpu.launch(places, len(matches), threads, on_device, *given, out, shared_bytes=words(1))
        found = gpu.get(out)
    best_first = np.lexsort((found, queries))
    return MatchPlaces(indptr, matches[best_first], found[best_first])

"""No result depends on how many threads there are, down to the last bit."""

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from longer import longer

import murank_kernels

DIGESTS = """
import hashlib

import numpy as np
from murank_kernels import (
    align_cameras, ca_jaccard, ecn, evaluate_rank, k_reciprocal, re_ranking, simple, smallest_k
)

rng = np.random.default_rng(0)
num_query, num_gallery = 300, 1200
rows = rng.standard_normal((num_query + num_gallery, 96), np.float32)
camids = rng.integers(4, size=len(rows))
candidates = np.argsort(rng.random((num_query, num_gallery)), axis=1)[:, :10]
fusion = {"mu": rng.random(candidates.shape), "candidates": candidates}
distances = simple(rows, num_query)
q_q, g_g = simple(rows[: 2 * num_query], num_query), rng.random((num_gallery, num_gallery))
results = {
    "k_reciprocal": k_reciprocal(rows, num_query, **fusion),
    "zhong": k_reciprocal(rows, num_query, k1=20, k2=6, squared=True),
    "ca_jaccard": ca_jaccard(rows, num_query, camids, **fusion),
    "ca_jaccard clqe": ca_jaccard(rows, num_query, camids, ckrnns=False, clqe=True),
    "ecn": ecn(rows, num_query, **fusion),
    "ecn origdist": ecn(rows, num_query, method="origdist"),
    "simple": distances,
    "top_k": np.hstack(k_reciprocal(rows, num_query, top_k=20)),
    "smallest_k": np.hstack(smallest_k(distances, 30)),
    "align_cameras": align_cameras(rows, camids, num_query=num_query, dims=40),
    "re_ranking": re_ranking(distances, q_q, g_g),
}
labels = (rng.integers(40, size=size) for size in (num_query, num_gallery) * 2)
results["evaluate_rank"] = evaluate_rank(distances, *labels).all_AP
for name, array in results.items():
    print(name, hashlib.sha256(np.ascontiguousarray(array)).hexdigest())
"""


@lru_cache
def digests(numba_threads: int, blas_threads: int) -> str:
    environment = {
        **os.environ,
        "NUMBA_NUM_THREADS": str(numba_threads),
        "OPENBLAS_NUM_THREADS": str(blas_threads),
        "PYTHONPATH": str(Path(murank_kernels.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Each pair is a process of its own; who of the two it was is asked at length.
@pytest.mark.parametrize(("numba_threads", "blas_threads"), [(2, 2), *longer((2, 1), (1, 2))])
def test_same_bits(numba_threads: int, blas_threads: int) -> None:
    one_thread = digests(1, 1).splitlines()
    assert len(one_thread) == 12
    assert digests(numba_threads, blas_threads).splitlines() == one_thread

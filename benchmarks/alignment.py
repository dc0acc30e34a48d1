"""What camera alignment costs, and what it saves: CPU time beside re-ranking, in one table.

    python benchmarks/alignment.py                 Market-1501 (19,281 x 512), three rounds
    python benchmarks/alignment.py --rounds 1      quicker

CPU seconds count all threads; compiling is not counted. Rounds run the contenders in turn, figures
are medians. Fit floor: the products of mutual neighbours, 2 (1 - 1/C) M² D FLOP over M rows kept.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from kernels import SIZES, ZHONG, machine, make_inputs

from murank_kernels import CameraAlignment, OnlineCaJaccard, ca_jaccard_blocks, k_reciprocal_blocks

K_RECIPROCAL = "k-reciprocal (20, 6, squared), 512 values"
DIMS, TOP, CANDIDATES, GALLERY, QUERIES = 128, 50, 20, 10_000, 100


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def contenders() -> dict[str, Callable[[], object]]:
    """What is timed, by name; all of it compiled."""
    made = make_inputs("market")
    rows, camids, first = made["features"], made["camids"], SIZES["market"][0]
    alignment = CameraAlignment.fit(rows[first:], camids[first:], dims=DIMS)
    aligned = alignment.apply(rows, camids)
    online = OnlineCaJaccard(aligned[first : first + GALLERY], camids[first : first + GALLERY])
    mu = np.linspace(0, 1, CANDIDATES)

    def queries() -> None:
        for place in range(QUERIES):
            query = online.query(aligned[place], int(camids[place]))
            query.fused(mu, query.nearest(CANDIDATES)[1]).reranked_top(TOP)

    def one_by_one() -> None:
        for place in range(QUERIES):
            alignment.apply(rows[place : place + 1], camids[place : place + 1])

    for warm in (queries, one_by_one):
        warm()
    return {
        "fit, pairs, on 15,913 gallery rows": lambda: CameraAlignment.fit(
            rows[first:], camids[first:], dims=DIMS
        ),
        "fit, mean": lambda: CameraAlignment.fit(rows[first:], camids[first:], level="mean"),
        "apply to 19,281 rows, 128 directions": lambda: alignment.apply(rows, camids),
        K_RECIPROCAL: lambda: k_reciprocal_blocks(rows, first, **ZHONG).top_k(TOP),
        "k-reciprocal, 128 aligned": lambda: k_reciprocal_blocks(aligned, first, **ZHONG).top_k(
            TOP
        ),
        "CA-Jaccard, 512 values": lambda: ca_jaccard_blocks(rows, first, camids).top_k(TOP),
        "CA-Jaccard, 128 aligned": lambda: ca_jaccard_blocks(aligned, first, camids).top_k(TOP),
        f"{QUERIES} queries aligned one by one": one_by_one,
        f"{QUERIES} queries, CA-Jaccard among the nearest 500 of 10,000": queries,
    }


def main() -> None:
    """Print a row a contender."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    work = contenders()
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, one in work.items():
            seconds[name].append(cpu_seconds(one))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{machine()}\n\n| | CPU seconds | of k-reciprocal |\n|---|---:|---:|")
    for name, median in medians.items():
        of_all = "" if "queries" in name else f"{median / medians[K_RECIPROCAL]:.2f}"
        print(f"| {name} | {median:.3f} | {of_all} |")


if __name__ == "__main__":
    main()

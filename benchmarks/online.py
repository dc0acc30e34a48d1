"""One query at a time against a gallery in memory: time to build, time a query, and the floor.

    python benchmarks/online.py                          1,000, 10,000 and 100,000 gallery images
    python benchmarks/online.py --sizes 10000            one size
    python benchmarks/online.py --k1 20 --k2 6 --squared the parameters of Zhong et al.

A query is everything after the encoder: distances to the whole gallery, the 20 nearest, their mu
fused in, the 50 best of the final order. Queries take one thread; the build takes all. The floor is
one read of the gallery's features (their largest value), timed in turn with the queries. Beside
them the joint call, which finds the gallery's neighbours anew for each query, up to
--joint-up-to images. Compiling is not counted. Wall times; p99 by nearest rank.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from kernels import machine
from numpy.typing import NDArray

from murank_kernels import OnlineKReciprocal, k_reciprocal

DIM = 512
CANDIDATES, BEST = 20, 50
IMAGES_EACH = 13  # of a person, on average
Array = NDArray[Any]
T = TypeVar("T")


def make_inputs(num_gallery: int, num_query: int) -> tuple[Array, Array, Array]:
    """Clustered features: gallery [G,D], queries [Q,D], and the mu of their candidates."""
    random = np.random.default_rng(7)
    people = random.standard_normal((max(1, num_gallery // IMAGES_EACH), DIM), np.float32)
    total = num_gallery + num_query
    rows = 1.2 * random.standard_normal((total, DIM), np.float32)
    rows += people[random.integers(len(people), size=total)]
    mu = random.random((num_query, CANDIDATES))
    return rows[:num_gallery], rows[num_gallery:], mu


class Clock:
    """Collects seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, work: Callable[[], T]) -> T:
        """Do it, and remember how long it took."""
        start = time.perf_counter()
        result = work()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def milliseconds(self, name: str, share: float) -> str:
        """Quantile by nearest rank."""
        ordered = sorted(self.seconds[name])
        rank = max(0, int(np.ceil(share * len(ordered))) - 1)
        return f"{1000 * ordered[rank]:.2f}"


def answer(online: OnlineKReciprocal, feature: Array, mu: Array, clock: Clock) -> None:
    """One whole query, and two of its parts."""

    def whole() -> None:
        query = clock.time("distances", lambda: online.query(feature))
        candidates = query.nearest(CANDIDATES)[1]
        fused = query.fused(mu, candidates)
        clock.time("re-rank", lambda: fused.reranked_top(BEST))

    clock.time("query", whole)


def joint_call(online: OnlineKReciprocal, inputs: tuple[Array, ...], options: Any) -> str:
    """Seconds of the joint call for one query, and how far its distances are from ours."""
    gallery, features, mu = inputs
    candidates = online.query(features[0]).nearest(CANDIDATES)[1]
    rows = np.concatenate([features[:1], gallery])
    clock = Clock()
    joint = clock.time(
        "joint",
        lambda: k_reciprocal(rows, 1, mu=mu[:1], candidates=candidates[None], **options),
    )
    assert isinstance(joint, np.ndarray)
    apart = np.abs(joint[0] - online.query(features[0]).fused(mu[0], candidates).reranked()).max()
    return f"{clock.seconds['joint'][0]:.2f} | {apart:.0e}"


def row(num_gallery: int, arguments: argparse.Namespace) -> str:
    """Measure one size of gallery."""
    options = {"k1": arguments.k1, "k2": arguments.k2, "squared": arguments.squared}
    inputs = make_inputs(num_gallery, arguments.queries)
    gallery, features, mu = inputs
    clock = Clock()
    online = clock.time("build", lambda: OnlineKReciprocal(gallery, **options))
    for feature, scores in zip(features, mu, strict=True):
        answer(online, feature, scores, clock)
        clock.time("floor", gallery.max)
    joint = "- | -"
    if num_gallery <= arguments.joint_up_to:
        joint = joint_call(online, inputs, options)
    quantiles = [
        clock.milliseconds(name, share)
        for name in ("query", "distances", "re-rank", "floor")
        for share in (0.5, 0.99)
    ]
    cells = [f"{num_gallery:,}", f"{clock.seconds['build'][0]:.2f}", *quantiles, joint]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a row per size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--k1", type=int, default=10)
    parser.add_argument("--k2", type=int, default=5)
    parser.add_argument("--squared", action="store_true")
    parser.add_argument("--joint-up-to", type=int, default=10_000, help="gallery images")
    arguments = parser.parse_args()
    warm, _, _ = make_inputs(600, 1)
    for squared in {False, arguments.squared}:
        OnlineKReciprocal(warm, squared=squared)
    print(f"Machine: {machine()}")
    print(f"D = {DIM}, k1 = {arguments.k1}, k2 = {arguments.k2}, {arguments.queries} queries\n")
    heads = ["G", "build s"]
    for name in ("query", "of it distances", "of it re-rank", "floor"):
        heads += [f"{name} ms p50", "p99"]
    heads += ["joint call s", "largest difference"]
    print(f"| {' | '.join(heads)} |\n|{' ---: |' * len(heads)}")
    for num_gallery in arguments.sizes:
        print(row(num_gallery, arguments), flush=True)


if __name__ == "__main__":
    main()

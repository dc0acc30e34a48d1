"""The encoder's own distances, with mu fused in where it is given."""

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._types import F32, I32, Products
from murank_kernels.fusion.fusion import Fusion
from murank_kernels.loops.parallel import Progress
from murank_kernels.tiles.distance_blocks import DistanceBlocks, Finish
from murank_kernels.tiles.prepare import MethodInput, prepare


def simple(
    features: ArrayLike,
    num_query: int,
    *,
    mu: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    alpha: float = 0.2,
    normalize: bool = True,
    top_k: int | None = None,
    device: str = "cpu",
    products: Products = "float32",
    progress: Progress | None = None,
) -> F32 | tuple[F32, I32]:
    """Rank by Euclidean distance, or with `mu` by the fused distance, without neighbours.

    Parameters are those of `k_reciprocal`, but for `gallery_mu`: no distance between gallery images
    has a say here. Returns [Q,G] float32 distances (in [0,2] for unit rows, small = same person),
    or with `top_k` a pair (distances [Q,k], indices [Q,k]). With products="tf32", `top_k` is a
    search: rounded products choose k + 16 candidates of each query, whose distances in float32
    choose and order the k; an item may be missed. Without `top_k` nothing is rounded.

    Source: MUSE, arXiv 2606.16161 ("simple" fusion).
    """
    return simple_blocks(
        features, num_query, mu=mu, candidates=candidates, alpha=alpha, normalize=normalize,
        device=device, products=products, progress=progress,
    ).dense_or_top_k(top_k)  # fmt: skip


def simple_blocks(
    features: ArrayLike,
    num_query: int,
    *,
    mu: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    alpha: float = 0.2,
    normalize: bool = True,
    device: str = "cpu",
    products: Products = "float32",
    progress: Progress | None = None,
) -> DistanceBlocks:
    """Rank as `simple` does, with the distances made some query rows at a time."""
    fusion = Fusion(mu, candidates, alpha)
    given = MethodInput(features, num_query, fusion, normalize, device, products, progress)
    if given.on_device():
        from murank_kernels.methods import on_device

        return on_device.simple_blocks(given)
    ready = prepare(given)
    return DistanceBlocks(ready, _no_search, progress, search_measures=False)


def _no_search(_measured: F32 | None) -> Finish:
    return _take_roots


def _take_roots(_first_query: int, rows: F32) -> None:
    np.sqrt(rows, out=rows)

"""ECN: expanded cross neighbourhood distance."""

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._types import F32, I32, Products
from murank_kernels.fusion.fusion import Fusion
from murank_kernels.loops.parallel import Progress
from murank_kernels.methods import ecn_origdist, ecn_rankdist
from murank_kernels.methods.settings import EcnMethod, EcnSettings
from murank_kernels.tiles.distance_blocks import DistanceBlocks, Finish
from murank_kernels.tiles.neighbors import neighbors
from murank_kernels.tiles.prepare import MethodInput, prepare
from murank_kernels.tiles.search import Search


def ecn(
    features: ArrayLike,
    num_query: int,
    *,
    k: int = 25,
    t: int = 3,
    q: int = 8,
    method: EcnMethod = "rankdist",
    mu: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    gallery_mu: ArrayLike | None = None,
    gallery_candidates: ArrayLike | None = None,
    alpha: float = 0.2,
    normalize: bool = True,
    top_k: int | None = None,
    device: str = "cpu",
    products: Products = "float32",
    progress: Progress | None = None,
) -> F32 | tuple[F32, I32]:
    """Re-rank by the mean distance between each item and the other's expanded neighbours.

    Parameters
    ----------
    features, num_query, mu, candidates, gallery_mu, gallery_candidates, alpha, normalize, top_k,
    device, products, progress
        As in `k_reciprocal`.
    k : int
        Length of the rank lists that "rankdist" compares.
    t, q : int
        Expanded neighbours: the t nearest, and the q nearest of each of those.
    method : "rankdist" or "origdist"
        Distance between an item and a neighbour: minus the agreement of their rank lists (values
        are <= 0), or the Euclidean distance. The former is sparse; the latter is not by its
        definition, and costs a multiple of all distances.

    Returns
    -------
    As `k_reciprocal`; small = same person. Where the mean is exactly 0 (rank lists that share
    nothing), the encoder's (fused) distance stands in its place.

    Raises
    ------
    InvalidInputError, DeviceUnavailableError
        Before any work.

    Source: Sarfraz et al., "A Pose-Sensitive Embedding for Person Re-Identification with Expanded
    Cross Neighborhood Re-Ranking", CVPR 2018.
    """
    return ecn_blocks(
        features, num_query, k=k, t=t, q=q, method=method, mu=mu, candidates=candidates,
        gallery_mu=gallery_mu, gallery_candidates=gallery_candidates, alpha=alpha,
        normalize=normalize, device=device, products=products, progress=progress,
    ).dense_or_top_k(top_k)  # fmt: skip


def ecn_blocks(
    features: ArrayLike,
    num_query: int,
    *,
    k: int = 25,
    t: int = 3,
    q: int = 8,
    method: EcnMethod = "rankdist",
    mu: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    gallery_mu: ArrayLike | None = None,
    gallery_candidates: ArrayLike | None = None,
    alpha: float = 0.2,
    normalize: bool = True,
    device: str = "cpu",
    products: Products = "float32",
    search: Search | None = None,
    progress: Progress | None = None,
) -> DistanceBlocks:
    """Re-rank as `ecn` does, with the distances made some query rows at a time.

    `search`: who looks for neighbours instead, on the CPU, see `Search`.
    """
    settings = EcnSettings(k, t, q, method).checked()
    fusion = Fusion(mu, candidates, alpha, gallery_mu, gallery_candidates)
    given = MethodInput(features, num_query, fusion, normalize, device, products, progress)
    if given.on_device(search):
        from murank_kernels.methods import on_device

        return on_device.ecn_blocks(given, settings)
    ready = prepare(given)

    def build(measured: F32 | None) -> Finish:
        length = max(settings.k, settings.t + 1, settings.q + 1)
        near = neighbors(
            ready.features, length, ready.changes, num_query=ready.num_query,
            query_gallery=measured, search=search, progress=progress,
        ).indices  # fmt: skip
        expanded = expanded_neighbors(near, settings.t, settings.q)
        if settings.method == "rankdist":
            lists = near[:, : settings.k]
            return ecn_rankdist.finish(lists, settings.k, expanded, ready.num_query)
        return ecn_origdist.finish(ready.tiles(), expanded, ready.num_query)

    rows_each = 64 if settings.method == "rankdist" else ecn_origdist.ROWS_EACH
    return DistanceBlocks(
        ready, build, progress, rows_each=rows_each, search_measures=search is None
    )


def expanded_neighbors(near: I32, t: int, q: int) -> I32:
    """Expanded neighbours [N, t + t*q] with repeats: places 1..t, then places 1..q of each."""
    direct = near[:, 1 : t + 1]
    indirect = near[:, 1 : q + 1][direct]
    return np.hstack([direct, indirect.reshape(len(near), -1)])

"""CA-Jaccard: camera-aware reciprocal neighbours and query expansion."""

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._types import F32, I32, I64, Products
from murank_kernels.checks import validate
from murank_kernels.codes.encoding import Scale, encode, expand_queries, gallery_columns
from murank_kernels.codes.jaccard import jaccard_rows
from murank_kernels.codes.reciprocal_sets import expanded_sets, united_sets
from murank_kernels.fusion.fusion import Fusion
from murank_kernels.loops.parallel import Progress
from murank_kernels.methods.settings import CaJaccardSettings
from murank_kernels.tiles.camera_lists import CameraLists, camera_lists
from murank_kernels.tiles.distance_blocks import DistanceBlocks, Finish
from murank_kernels.tiles.neighbors import neighbors
from murank_kernels.tiles.prepare import MethodInput, prepare
from murank_kernels.tiles.search import Search


def ca_jaccard(
    features: ArrayLike,
    num_query: int,
    camids: ArrayLike,
    *,
    k1: int = 10,
    k2: int = 5,
    k1_intra: int = 5,
    k1_inter: int = 20,
    k2_intra: int = 2,
    k2_inter: int = 4,
    ckrnns: bool = True,
    clqe: bool = False,
    lambda_value: float = 0.3,
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
    """Re-rank by the camera-aware Jaccard distance.

    Parameters
    ----------
    features, num_query, lambda_value, mu, candidates, gallery_mu, gallery_candidates, alpha,
    normalize, top_k, device, products, progress
        As in `k_reciprocal`.
    camids : [N] int
        Camera of each row of `features`.
    ckrnns : bool
        Encode by reciprocal neighbours within the camera (`k1_intra`) and across cameras
        (`k1_inter`); else by the expanded `k1`-reciprocal ones.
    clqe : bool
        Average the nearest `k2_intra` of the own camera and `k2_inter` of the others; else the
        nearest `k2`; k2 = 1 switches that off.

    Returns
    -------
    As `k_reciprocal`. Where a camera has too few images, the nearest of the others fill its list.

    Raises
    ------
    InvalidInputError, DeviceUnavailableError
        Before any work.

    Source: Chen et al., "CA-Jaccard: Camera-aware Jaccard Distance for Person Re-identification",
    CVPR 2024.
    """
    return ca_jaccard_blocks(
        features, num_query, camids, k1=k1, k2=k2, k1_intra=k1_intra, k1_inter=k1_inter,
        k2_intra=k2_intra, k2_inter=k2_inter, ckrnns=ckrnns, clqe=clqe, lambda_value=lambda_value,
        mu=mu, candidates=candidates, gallery_mu=gallery_mu, gallery_candidates=gallery_candidates,
        alpha=alpha, normalize=normalize, device=device, products=products, progress=progress,
    ).dense_or_top_k(top_k)  # fmt: skip


def ca_jaccard_blocks(
    features: ArrayLike,
    num_query: int,
    camids: ArrayLike,
    *,
    k1: int = 10,
    k2: int = 5,
    k1_intra: int = 5,
    k1_inter: int = 20,
    k2_intra: int = 2,
    k2_inter: int = 4,
    ckrnns: bool = True,
    clqe: bool = False,
    lambda_value: float = 0.3,
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
    """Re-rank as `ca_jaccard` does, with the distances made some query rows at a time.

    `search`: who looks for neighbours instead, on the CPU, see `Search`.
    """
    settings = CaJaccardSettings(
        k1, k2, k1_intra, k1_inter, k2_intra, k2_inter, ckrnns, clqe, lambda_value
    ).checked()
    fusion = Fusion(mu, candidates, alpha, gallery_mu, gallery_candidates)
    given = MethodInput(features, num_query, fusion, normalize, device, products, progress)
    if given.on_device(search):
        from murank_kernels.methods import on_device

        return on_device.ca_jaccard_blocks(given, camids, settings)
    cameras = validate.as_labels(camids, "camids", validate.num_rows(features))
    ready = prepare(given)

    def build(measured: F32 | None) -> Finish:
        _, numbers = np.unique(cameras, return_inverse=True)
        found = neighbors(
            ready.features, settings.length, ready.changes, num_query=ready.num_query,
            cameras=numbers.astype(np.int32), query_gallery=measured, search=search,
            progress=progress,
        )  # fmt: skip
        near = camera_lists(found)
        scale = Scale.of(found.row_max, squared=False)
        codes = encode(*_encoded_by(near, settings), ready.pair_distances, scale)
        if settings.clqe or settings.k2 > 1:
            codes = expand_queries(codes, _averaged(near, settings))
        columns = gallery_columns(codes, ready.num_query)
        return partial(jaccard_rows, codes, columns, scale, settings.lambda_value)

    return DistanceBlocks(ready, build, progress, search_measures=search is None)


def _encoded_by(near: CameraLists, settings: CaJaccardSettings) -> tuple[I64, I32]:
    if settings.ckrnns:
        return united_sets(near.intra, settings.k1_intra + 1, near.inter, settings.k1_inter + 1)
    return expanded_sets(near.all, settings.k1)


def _averaged(near: CameraLists, settings: CaJaccardSettings) -> I32:
    if settings.clqe:
        return np.hstack([near.intra[:, : settings.k2_intra], near.inter[:, : settings.k2_inter]])
    return near.all[:, : settings.k2]

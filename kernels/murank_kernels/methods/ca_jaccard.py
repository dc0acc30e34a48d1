"""CA-Jaccard: camera-aware reciprocal neighbours and query expansion."""

from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._types import F32, I32, Products
from murank_kernels.checks import validate
from murank_kernels.codes.encoding import Scale, encode, expand_queries, gallery_columns
from murank_kernels.codes.jaccard import jaccard_rows
from murank_kernels.codes.reciprocal_sets import expanded_sets, united_sets
from murank_kernels.loops.parallel import Progress
from murank_kernels.tiles.camera_lists import CameraLists, camera_lists
from murank_kernels.tiles.distance_blocks import DistanceBlocks, Finish
from murank_kernels.tiles.neighbors import neighbors
from murank_kernels.tiles.prepare import prepare


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
    progress: Progress | None = None,
) -> DistanceBlocks:
    """Re-rank as `ca_jaccard` does, with the distances made some query rows at a time."""
    k1, k2 = validate.as_count(k1, "k1"), validate.as_count(k2, "k2")
    k1_intra = validate.as_count(k1_intra, "k1_intra")
    k1_inter = validate.as_count(k1_inter, "k1_inter")
    k2_intra = validate.as_count(k2_intra, "k2_intra")
    k2_inter = validate.as_count(k2_inter, "k2_inter")
    lambda_value = validate.as_fraction(lambda_value, "lambda_value")
    validate.check_products(products, device)
    if device == "cuda":
        from murank_kernels.methods import on_device

        return on_device.ca_jaccard_blocks(
            features, num_query, camids, k1=k1, k2=k2, k1_intra=k1_intra, k1_inter=k1_inter,
            k2_intra=k2_intra, k2_inter=k2_inter, ckrnns=ckrnns, clqe=clqe,
            lambda_value=lambda_value, mu=mu, candidates=candidates,
            gallery_mu=gallery_mu, gallery_candidates=gallery_candidates, alpha=alpha,
            normalize=normalize, products=products, progress=progress,
        )  # fmt: skip
    cameras = validate.as_labels(camids, "camids", validate.num_rows(features))
    ready = prepare(
        features, num_query, mu=mu, candidates=candidates, gallery_mu=gallery_mu,
        gallery_candidates=gallery_candidates, alpha=alpha, normalize=normalize, device=device,
    )  # fmt: skip
    lengths = [*((k1_intra + 1, k1_inter + 1) if ckrnns else (k1 + 1,))]
    lengths += [*((k2_intra, k2_inter) if clqe else (k2,))]

    def averaged(near: CameraLists) -> I32:
        if clqe:
            return np.hstack([near.intra[:, :k2_intra], near.inter[:, :k2_inter]])
        return near.all[:, :k2]

    def build(measured: F32 | None) -> Finish:
        _, numbers = np.unique(cameras, return_inverse=True)
        found = neighbors(
            ready.features, max(lengths), ready.changes, num_query=ready.num_query,
            cameras=numbers.astype(np.int32), query_gallery=measured, progress=progress,
        )  # fmt: skip
        near = camera_lists(found)
        scale = Scale.of(found.row_max, squared=False)
        if ckrnns:
            sets = united_sets(near.intra, k1_intra + 1, near.inter, k1_inter + 1)
        else:
            sets = expanded_sets(near.all, k1)
        codes = encode(*sets, ready.pair_distances, scale)
        if clqe or k2 > 1:
            codes = expand_queries(codes, averaged(near))
        columns = gallery_columns(codes, ready.num_query)
        return partial(jaccard_rows, codes, columns, scale, lambda_value)

    return DistanceBlocks(ready, build, progress)

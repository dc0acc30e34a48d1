"""k-reciprocal re-ranking: Zhong et al. 2017, and by default the variant of MUSE."""

from functools import partial

from numpy.typing import ArrayLike

from murank_kernels._types import F32, I32, Products
from murank_kernels.codes.encoding import Scale, encode, expand_queries, gallery_columns
from murank_kernels.codes.jaccard import jaccard_rows
from murank_kernels.codes.reciprocal_sets import expanded_sets
from murank_kernels.fusion.fusion import Fusion
from murank_kernels.loops.parallel import Progress
from murank_kernels.methods.settings import KReciprocalSettings
from murank_kernels.tiles.distance_blocks import DistanceBlocks, Finish
from murank_kernels.tiles.neighbors import neighbors
from murank_kernels.tiles.prepare import MethodInput, prepare
from murank_kernels.tiles.search import Search


def k_reciprocal(
    features: ArrayLike,
    num_query: int,
    *,
    k1: int = 10,
    k2: int = 5,
    lambda_value: float = 0.3,
    squared: bool = False,
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
    """Re-rank by k-reciprocal encoding.

    Parameters
    ----------
    features : [N,D] float16, float32 or float64
        Encoder features, the queries first.
    num_query : int
        Q; the other G = N - Q rows are the gallery.
    k1, k2 : int
        Neighbours of the encoding and of the local query expansion; k2 = 1 switches the latter off.
    lambda_value : float
        Weight of the encoder distance beside the Jaccard distance, in [0,1].
    squared : bool
        Distances squared, as Zhong et al. with k1 = 20, k2 = 6; else Euclidean, as MUSE.
    mu, candidates : [Q,K] float and int, or None
        p("different person") of each query's candidates and their gallery indices. They are fused
        into the distances before neighbours are looked for. Swapped variant: average mu first.
    gallery_mu, gallery_candidates : [G,M] float and int, or None
        The same for pairs inside the gallery: each gallery image and some others, never itself
        (-1: nobody, for one with fewer others). A pair named from both sides gets the mean of its
        two mu. With or without `mu`.
    alpha : float
        Weight of mu, in [0,1].
    normalize : bool
        Bring rows to unit length first. Mu expects unit rows.
    top_k : int or None
        With k, only the k best of each query are returned, and memory never holds Q x G.
    device : "cpu" or "cuda"
        An NVIDIA GPU, see murank_kernels.cuda. Features (and mu, candidates) may then be arrays of
        CuPy, PyTorch or Numba on it, and the results are CuPy arrays; NumPy in, NumPy out.
    products : "float32" or "tf32"
        What the neighbour search multiplies in, on device="cuda". With "tf32" the GPU may round the
        factors of its products to 10 bits of mantissa, which is faster from compute capability 8.0
        on. These products then decide who is in a neighbour list: among items that are nearly as
        far as its last one, a wrong one may enter; 16 entries more than needed are looked at. They
        also give the largest distance of each row, by which distances are normalised: it is off by
        about 1e-4. All else is as with "float32": distances in neighbour lists, and so their order,
        those that weights are made of, and those that are mixed into the result.
    progress : callable (stage, done, total), or None

    Returns
    -------
    [Q,G] float32 distances, small = same person; or with `top_k` a pair (distances [Q,k] float32,
    indices [Q,k] int32), best first, ties: lower index first. Where the largest distance of a row
    is 0, its normalised distance is defined as 0 (squared) or 1 (MUSE's clip at 1e-8).

    Raises
    ------
    InvalidInputError, DeviceUnavailableError
        Before any work.

    Source: Zhong et al., CVPR 2017; Li & Gong, arXiv 2606.16161.
    """
    return k_reciprocal_blocks(
        features, num_query, k1=k1, k2=k2, lambda_value=lambda_value, squared=squared, mu=mu,
        candidates=candidates, gallery_mu=gallery_mu, gallery_candidates=gallery_candidates,
        alpha=alpha, normalize=normalize, device=device, products=products, progress=progress,
    ).dense_or_top_k(top_k)  # fmt: skip


def k_reciprocal_blocks(
    features: ArrayLike,
    num_query: int,
    *,
    k1: int = 10,
    k2: int = 5,
    lambda_value: float = 0.3,
    squared: bool = False,
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
    """Re-rank as `k_reciprocal` does, with the distances made some query rows at a time.

    `search`: who looks for neighbours instead, on the CPU, see `Search`.
    """
    settings = KReciprocalSettings(k1, k2, lambda_value, squared).checked()
    fusion = Fusion(mu, candidates, alpha, gallery_mu, gallery_candidates)
    given = MethodInput(features, num_query, fusion, normalize, device, products, progress)
    if given.on_device(search):
        from murank_kernels.methods import on_device

        return on_device.k_reciprocal_blocks(given, settings)
    ready = prepare(given)

    def build(measured: F32 | None) -> Finish:
        near = neighbors(
            ready.features, settings.length, ready.changes,
            num_query=ready.num_query, query_gallery=measured, search=search, progress=progress,
        )  # fmt: skip
        scale = Scale.of(near.row_max, squared=settings.squared)
        codes = encode(*expanded_sets(near.indices, settings.k1), ready.pair_distances, scale)
        if settings.k2 > 1:
            codes = expand_queries(codes, near.indices[:, : settings.k2])
        columns = gallery_columns(codes, ready.num_query)
        return partial(jaccard_rows, codes, columns, scale, settings.lambda_value)

    return DistanceBlocks(ready, build, progress, search_measures=search is None)

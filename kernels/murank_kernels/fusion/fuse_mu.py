"""mu-distance fusion (MUSE, arXiv 2606.16161): d' = (1-alpha) d + alpha * scale * mu."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels.checks import validate
from murank_kernels.fusion.changes import SCALE
from murank_kernels.fusion.scores import as_mu


def fuse_mu(
    distances: ArrayLike,
    mu: ArrayLike,
    candidates: ArrayLike,
    *,
    alpha: float = 0.2,
    scale: float = SCALE,
) -> NDArray[np.float32]:
    """Fuse mu-distances into a query x gallery distance matrix ("simple" fusion).

    Parameters
    ----------
    distances : [Q,G] float
        Euclidean distances between unit features, in [0,2], small = same person.
    mu : [Q,K] float
        p("different person") in [0,1], small = same person. For the swapped variant average both
        orders first.
    candidates : [Q,K] int
        Gallery index (0..G-1) of each column of `mu`, no index twice in a row.
    alpha : float
        Weight of mu in [0,1].
    scale : float
        What mu = 1 counts as; the largest possible distance.

    Returns
    -------
    [Q,G] float32, a new array; entries that are nobody's candidate are unchanged.

    Raises
    ------
    InvalidInputError
        A value outside its range, a negative distance, shapes that do not fit, a candidate twice in
        a row.

    Source: MUSE, arXiv 2606.16161, fusion of the mu-distance.
    """
    alpha = validate.as_fraction(alpha, "alpha")
    given = validate.as_matrix(distances, "distances", limit=validate.LARGEST)
    validate.check_not_negative(
        given, "distances", "of cosine similarities, distance = (2 - 2 * similarity) ** 0.5"
    )
    scale = validate.as_not_negative(scale, "scale")
    scores = as_mu(mu, candidates, *given.shape)
    assert scores is not None  # noqa: S101  both arguments are required
    values, columns = scores
    out = given.astype(np.float32)
    rows = np.arange(given.shape[0])[:, None]
    out[rows, columns] = (1 - alpha) * given[rows, columns] + alpha * scale * values
    return out

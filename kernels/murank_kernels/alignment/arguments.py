"""Checks of what an alignment is given."""

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import I64
from murank_kernels.alignment.mutual import Pairs
from murank_kernels.checks import validate


def as_cameras(camids: ArrayLike, num_rows: int) -> I64:
    """Return camera numbers [num_rows]; one below 0 stands for an unknown camera."""
    if validate.on_device(camids):
        from murank_kernels.cuda.prepare import to_host

        camids = to_host(camids)
    return validate.as_labels(camids, "camids", num_rows)


def as_known_cameras(camids: ArrayLike, num_rows: int) -> I64:
    """Return the same; there must be a known one."""
    cameras = as_cameras(camids, num_rows)
    if not (cameras >= 0).any():
        raise InvalidInputError("camids are all below 0: no row is of a known camera")
    return cameras


def as_pairs(pairs: ArrayLike | None, weights: ArrayLike | None, num_rows: int) -> Pairs | None:
    """Return pairs [P,2] of rows and their weights [P]; None: they are to be found."""
    if pairs is None:
        if weights is not None:
            raise InvalidInputError("weights are of pairs: pass pairs, too")
        return None
    rows = validate.as_array(pairs, "pairs")
    if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "iu":
        raise InvalidInputError(f"pairs must be integers [P, 2], got {rows.dtype} {rows.shape}")
    if rows.size and not (rows.min() >= 0 and rows.max() < num_rows):
        raise InvalidInputError(f"pairs must be rows in 0..{num_rows - 1}")
    if (rows[:, 0] == rows[:, 1]).any():
        raise InvalidInputError("pairs name a row and itself; leave those out")
    return Pairs(rows.astype(np.int64), _as_weights(weights, len(rows)), len(rows))


def _as_weights(
    weights: ArrayLike | None, num_pairs: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if weights is None:
        return np.ones(num_pairs)
    given = validate.as_array(weights, "weights")
    if given.shape != (num_pairs,) or given.dtype.kind not in "fiu":
        raise InvalidInputError(f"weights must be real numbers [{num_pairs}], one a pair")
    if not (np.isfinite(given).all() and (given >= 0).all()):
        raise InvalidInputError("weights must be finite and not negative")
    if num_pairs and not given.any():
        raise InvalidInputError("weights are all 0, so that no pair is left; use level='mean'")
    return given.astype(np.float64)

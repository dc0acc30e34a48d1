"""Directions in which one person differs between cameras, and how little they are to count."""

import numpy as np

from murank_kernels._types import F32, F64
from murank_kernels.alignment._mutual import Pairs

_AT_ONCE = 4096


def within_person(centred: F32, pairs: Pairs) -> F64:
    """[D,D] covariance of one row of a person, from weighted differences of two.

    A difference has twice the covariance of its rows. Sums in float64.
    """
    total = np.zeros((centred.shape[1],) * 2)
    for start in range(0, len(pairs.rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        first, second = pairs.rows[part].T
        gaps = centred[first].astype(np.float64) - centred[second]
        gaps *= np.sqrt(pairs.weights[part])[:, None]
        total += gaps.T @ gaps
    total /= 2 * pairs.weights.sum()
    return total


def inverse_root(covariance: F64, ridge: float) -> F64:
    """(S + r I)^(-1/2), symmetric, with r = ridge * trace(S) / D."""
    values, vectors = np.linalg.eigh(covariance)
    r = ridge * float(np.trace(covariance)) / len(values)
    root: F64 = vectors / np.sqrt(np.maximum(values, 0) + r) @ vectors.T
    return root


def largest_variance(centred: F32, root: F64, dims: int) -> F64:
    """[D,dims] orthonormal directions in which rows of `centred @ root` vary most."""
    total = np.zeros_like(root)
    for start in range(0, len(centred), _AT_ONCE):
        some = centred[start : start + _AT_ONCE].astype(np.float64)
        total += some.T @ some
    _, vectors = np.linalg.eigh(root @ total @ root)
    directions: F64 = vectors[:, ::-1][:, :dims]
    return directions

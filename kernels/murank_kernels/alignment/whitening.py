"""Directions in which one person differs between cameras, and how little they are to count."""

import numpy as np

from murank_kernels._types import F64


def inverse_root(covariance: F64, ridge: float) -> F64:
    """(S + r I)^(-1/2), symmetric, with r = ridge * trace(S) / D."""
    values, vectors = np.linalg.eigh(covariance)
    r = ridge * float(np.trace(covariance)) / len(values)
    root: F64 = vectors / np.sqrt(np.maximum(values, 0) + r) @ vectors.T
    return root


def largest_variance(moments: F64, dims: int) -> F64:
    """[D,dims] orthonormal directions in which rows with these moments [D,D] vary most."""
    _, vectors = np.linalg.eigh(moments)
    directions: F64 = vectors[:, ::-1][:, :dims]
    return directions

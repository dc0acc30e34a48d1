"""What a pair scorer says: checked, and as one sparse list of pairs of rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F64, I64
from murank_kernels.checks.validate import as_array

Scores = tuple[F64, I64]
"""(mu in [0,1], gallery indices), both [rows, candidates of a row]."""


@dataclass(frozen=True)
class ScoredPairs:
    """Mu of pairs of rows, whatever the rows are; no pair twice."""

    first: I64  # [P] rows of the features
    second: I64  # [P] first < second
    mu: F64  # [P] in [0,1]

    @classmethod
    def of(cls, rows: I64, columns: I64, mu: F64, num_rows: int) -> "ScoredPairs":
        """Unite what was named from both sides: the mean of its mu."""
        keys = np.minimum(rows, columns) * num_rows + np.maximum(rows, columns)
        pairs, place = np.unique(keys, return_inverse=True)
        mean = np.bincount(place, weights=mu) / np.bincount(place)
        return cls(pairs // num_rows, pairs % num_rows, mean)


def as_mu(
    mu: ArrayLike | None, candidates: ArrayLike | None, num_query: int, num_gallery: int
) -> Scores | None:
    """Return (mu [Q,K] in [0,1], gallery indices [Q,K]), or None if neither is given."""
    return _as_scores(mu, candidates, (num_query, num_gallery), prefix="", row_name="query")


def as_gallery_mu(
    mu: ArrayLike | None, candidates: ArrayLike | None, num_gallery: int
) -> Scores | None:
    """Return (mu [G,M] in [0,1], gallery indices [G,M]), or None if neither is given.

    An index of -1 names nobody: some images may have fewer others than M.
    """
    shape, row_name = (num_gallery, num_gallery), "gallery image"
    scores = _as_scores(mu, candidates, shape, prefix="gallery_", row_name=row_name, least=-1)
    if scores is not None:
        itself = (scores[1] == np.arange(num_gallery)[:, None]).any(axis=1)
        if itself.any():
            raise InvalidInputError(
                f"gallery_candidates of gallery image {int(np.argmax(itself))} name that image "
                "itself; leave it out"
            )
    return scores


def _as_scores(
    mu: ArrayLike | None,
    candidates: ArrayLike | None,
    shape: tuple[int, int],
    *,
    prefix: str,
    row_name: str,
    least: int = 0,
) -> Scores | None:
    """Check mu of `shape[0]` rows and some of `shape[1]` gallery items, or of nobody (-1)."""
    if mu is None and candidates is None:
        return None
    name, index_name = f"{prefix}mu", f"{prefix}candidates"
    if mu is None or candidates is None:
        missing, other = (name, index_name) if mu is None else (index_name, name)
        raise InvalidInputError(f"{missing} is missing: {other} was given, both are needed")
    values, indices = as_array(mu, name), as_array(candidates, index_name)
    if values.ndim != 2 or values.shape[0] != shape[0] or values.shape[1] == 0:
        letter = "M" if prefix else "K"
        raise InvalidInputError(
            f"{name} must have shape [{shape[0]}, {letter}], got {values.shape}"
        )
    if values.dtype.kind != "f":
        raise InvalidInputError(f"{name} must be floating point, got {values.dtype}")
    if indices.shape != values.shape:
        raise InvalidInputError(
            f"{index_name} must have the shape of {name}, {values.shape}, got {indices.shape}"
        )
    if indices.dtype.kind not in "iu":
        raise InvalidInputError(f"{index_name} must be integers, got {indices.dtype}")
    if indices.min() < least or indices.max() >= shape[1]:
        raise InvalidInputError(
            f"{index_name} must be gallery indices in 0..{shape[1] - 1}, found "
            f"{indices.min()}..{indices.max()}"
        )
    values = np.where(indices < 0, 0, values)  # of nobody
    if not ((values >= 0) & (values <= 1)).all():
        raise InvalidInputError(
            f"{name} must be in [0, 1] without NaN: it is p('different person')"
        )
    in_order = np.sort(indices, axis=1)
    twice = ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise InvalidInputError(
            f"{index_name} of {row_name} {int(np.argmax(twice))} name one item twice"
        )
    return values.astype(np.float64), indices.astype(np.int64)

"""What an alignment learns from the rows of a gallery, and how it is applied."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, F64, I64
from murank_kernels.alignment.means import CameraMeans
from murank_kernels.alignment.mutual import Pairs, mutual_neighbors
from murank_kernels.alignment.rows import Rows
from murank_kernels.loops import parallel
from murank_kernels.loops.parallel import Progress

Level: TypeAlias = Literal["pairs", "mean"]

MIN_PAIRS = 32
"""Nearest pairs that `pairs` needs."""

_MANY_ROWS = 400  # of a camera, averaged over rows: see `_caution`
_ROUNDING = 1e-10  # variance of unit rows that is none


@dataclass(frozen=True)
class FitSettings:
    """What `CameraAlignment.fit` is asked for."""

    level: Level
    prior: float
    ridge: float
    dims: int | None
    max_rows: int


@dataclass(frozen=True)
class Fitted:
    """What it learns."""

    level: Level  # what is done
    means: CameraMeans
    matrix: F32 | None  # [D,P], None: rows stay as they are
    pairs: Pairs | None
    fell_back: str | None  # why `level` is less than was asked for


def fit(
    rows: Rows, cameras: I64, given: Pairs | None, settings: FitSettings, progress: Progress | None
) -> Fitted:
    """Fit on N unit rows of cameras [N]; `given` pairs are used instead of found ones."""
    with parallel.workers():  # one thread each: the same sums for any number of them
        means = CameraMeans.of(rows, cameras, settings.prior)
        centred = means.centred(rows, cameras)
        pairs = why = None
        if settings.level == "pairs":
            pairs, why = _pairs(centred.unit_or(rows), cameras, given, settings, progress)
        covariance = None
        if pairs is not None:
            # A difference of two rows of a person has twice the covariance of one.
            covariance = centred.gap_moments(pairs) / (2 * pairs.weights.sum())
            if np.trace(covariance) < _ROUNDING:
                pairs = covariance = None
                why = "the rows of each pair are the same"
        ridge = settings.ridge * _caution(cameras)
        matrix = _matrix(centred, covariance, ridge, settings.dims)
    return Fitted("mean" if pairs is None else "pairs", means, matrix, pairs, why)


def apply(rows: Rows, cameras: I64, means: CameraMeans, matrix: F32 | None) -> Rows:
    """Unit rows of N unit rows: centred by camera, times the matrix.

    A row that is its camera's mean has no direction of its own; it keeps that of the mean.
    Raises InvalidInputError for a row that nothing is left of.
    """
    centred = means.centred(rows, cameras).unit_or(rows)
    if matrix is None:
        return centred
    out = centred.times(matrix)
    lengths = out.lengths()
    if not (lengths > 0).all():
        raise InvalidInputError(
            f"features row {int(np.argmin(lengths > 0))} has no direction left after alignment; "
            "remove that image"
        )
    return out.unit_or(out, 0)


def _pairs(
    rows: Rows, cameras: I64, given: Pairs | None, settings: FitSettings, progress: Progress | None
) -> tuple[Pairs | None, str | None]:
    """Pairs to learn from, or why there are none."""
    known = cameras[cameras >= 0]
    if given is None and (known == known[0]).all():
        return None, "all rows are of one camera"
    pairs = given or mutual_neighbors(rows, cameras, max_rows=settings.max_rows, progress=progress)
    if pairs.num_nearest < MIN_PAIRS:
        found = f"{pairs.num_nearest} pairs of rows of two cameras"
        return None, f"{found}, at least {MIN_PAIRS} are needed"
    return pairs, None


def _caution(cameras: I64) -> float:
    """How much larger the ridge is where pairs are less to be trusted.

    Among few rows of a camera, few show a person whom another camera's few rows show, too; the
    nearest are then mostly strangers (docs/photographs.md).
    """
    _, counts = np.unique(cameras[cameras >= 0], return_counts=True)
    rows_each = float((counts.astype(np.float64) ** 2).sum() / counts.sum())  # of a row's camera
    return max(1.0, _MANY_ROWS / rows_each)


def _matrix(centred: Rows, covariance: F64 | None, ridge: float, dims: int | None) -> F32 | None:
    """What centred rows are multiplied with; the covariance is within a person."""
    if covariance is None and dims is None:
        return None
    root = np.eye(centred.dim) if covariance is None else _inverse_root(covariance, ridge)
    if dims is not None:
        root = root @ _largest_variance(root @ centred.moments() @ root, dims)
    return root.astype(np.float32)


def _inverse_root(covariance: F64, ridge: float) -> F64:
    """(S + r I)^(-1/2), symmetric, with r = ridge * trace(S) / D."""
    values, vectors = np.linalg.eigh(covariance)
    r = ridge * float(np.trace(covariance)) / len(values)
    root: F64 = vectors / np.sqrt(np.maximum(values, 0) + r) @ vectors.T
    return root


def _largest_variance(moments: F64, dims: int) -> F64:
    """[D,dims] orthonormal directions in which rows with these moments [D,D] vary most."""
    _, vectors = np.linalg.eigh(moments)
    directions: F64 = vectors[:, ::-1][:, :dims]
    return directions

"""What an alignment learns from the rows of a gallery."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from murank_kernels import _parallel
from murank_kernels._parallel import Progress
from murank_kernels._types import F32, I64
from murank_kernels.alignment._apply import aligned
from murank_kernels.alignment._means import CameraMeans
from murank_kernels.alignment._mutual import Pairs, mutual_neighbors
from murank_kernels.alignment._whitening import inverse_root, largest_variance, within_person

Level: TypeAlias = Literal["pairs", "mean"]

MIN_PAIRS = 32
"""Nearest pairs that `pairs` needs."""


@dataclass(frozen=True)
class Settings:
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
    rows: F32, cameras: I64, given: Pairs | None, settings: Settings, progress: Progress | None
) -> Fitted:
    """Fit on unit rows [N,D] of cameras [N]; `given` pairs are used instead of found ones."""
    with _parallel.workers():  # one thread each: the same sums for any number of them
        means = CameraMeans.of(rows, cameras, settings.prior)
        pairs, why = _pairs(rows, cameras, means, given, settings, progress)
        matrix = _matrix(means.centred(rows, cameras), pairs, settings)
    return Fitted("mean" if pairs is None else "pairs", means, matrix, pairs, why)


def _pairs(
    rows: F32, cameras: I64, means: CameraMeans, given: Pairs | None, settings: Settings,
    progress: Progress | None,
) -> tuple[Pairs | None, str | None]:  # fmt: skip
    """Pairs to learn from, or why there are none."""
    if settings.level == "mean":
        return None, None
    if given is None and len(means.camids) == 1:
        return None, "all rows are of one camera"
    centred = aligned(rows, cameras, means, None)
    pairs = given or mutual_neighbors(
        centred, cameras, max_rows=settings.max_rows, progress=progress
    )
    if pairs.num_nearest < MIN_PAIRS:
        return (
            None,
            f"{pairs.num_nearest} pairs of rows of two cameras, at least {MIN_PAIRS} are needed",
        )
    return pairs, None


def _matrix(centred: F32, pairs: Pairs | None, settings: Settings) -> F32 | None:
    """What centred rows are multiplied with."""
    if pairs is None and settings.dims is None:
        return None
    root = np.eye(centred.shape[1])
    if pairs is not None:
        root = inverse_root(within_person(centred, pairs), settings.ridge)
    if settings.dims is not None:
        root = root @ largest_variance(centred, root, settings.dims)
    return root.astype(np.float32)

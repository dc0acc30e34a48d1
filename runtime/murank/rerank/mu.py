"""Mu-distances of the candidates: p("different person") from a pair scorer."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.files.npz import check_array, read_npz
from murank.images.arguments import take_arrays


@dataclass(frozen=True)
class MuDistances:
    """Mu of each query and each of its candidates.

    Mu between gallery images has the same form: each is the query once, with others of the
    gallery as its candidates, [G,M].
    """

    mu: NDArray[np.floating[Any]]  # [Q,K] in [0,1], small = same person
    candidates: NDArray[np.integer[Any]]  # [Q,K] gallery indices

    def __post_init__(self) -> None:
        """Take tensors and lists, too."""
        take_arrays(self)


def load_mu(
    path: str | os.PathLike[str], swapped: str | os.PathLike[str] | None = None
) -> MuDistances:
    """Read mu-distances, and average them with those of the swapped prompt order if given.

    Parameters
    ----------
    path
        .npz with `probs` [Q,K] float in [0,1] and `gallery_indices` [Q,K] int. Between gallery
        images: [G,M].
    swapped
        The same for the two images in the other order; its `gallery_indices` must be equal.

    Raises
    ------
    InputError
        A file cannot be read, its arrays do not fit, or the two files differ in candidates.
    """
    one = _read(Path(path))
    if swapped is None:
        return one
    other = _read(Path(swapped))
    if not np.array_equal(one.candidates, other.candidates):
        raise InputError(
            f"{path} and {swapped} name different candidates: gallery_indices must be equal"
        )
    return MuDistances(mean_mu(one.mu, other.mu), one.candidates)


def mean_mu(
    given: NDArray[np.floating[Any]], swapped: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return the mean of both prompt orders, [Q,K]."""
    mean: NDArray[np.float64] = (given.astype(np.float64) + swapped.astype(np.float64)) / 2
    return mean


def _read(file: Path) -> MuDistances:
    arrays = read_npz(file, ("probs", "gallery_indices"))
    mu, candidates = arrays["probs"], arrays["gallery_indices"]
    check_array(mu, f"{file}: probs", kinds="f", shape=(None, None))
    check_array(candidates, f"{file}: gallery_indices", kinds="iu", shape=mu.shape)
    if not ((mu >= 0) & (mu <= 1)).all():
        raise InputError(f'{file}: probs must be in [0, 1] without NaN: p("different person")')
    return MuDistances(mu, candidates)

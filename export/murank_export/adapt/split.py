"""Which people train, and which validate: nobody does both."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import InputError


@dataclass(frozen=True)
class Split:
    """Person ids of the two sides, each sorted."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]


def split_ids(pids: NDArray[np.integer[Any]], *, val_ratio: float, seed: int) -> Split:
    """Shuffle the ids by seed; the first round(val_ratio * ids) of them validate.

    Parameters
    ----------
    pids
        [N] person ids; each id counts once, however many images it has.
    val_ratio
        Above 0 and below 1.
    seed
        Of numpy's default generator; the order of the images has no influence.

    Raises
    ------
    InputError
        One side would have no id.
    """
    ids = np.unique(pids).astype(np.int64)
    count = round(val_ratio * len(ids))
    if not 0 < count < len(ids):
        side = "validation" if count == 0 else "training"
        raise InputError(
            f"a val_ratio of {val_ratio:g} leaves no person of {len(ids)} for {side}; "
            f"{'raise' if count == 0 else 'lower'} --val-ratio (val_ratio)"
        )
    shuffled = np.random.default_rng(seed).permutation(ids)
    return Split(train=np.sort(shuffled[count:]), val=np.sort(shuffled[:count]))

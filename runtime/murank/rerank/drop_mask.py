"""A mask in a file: which gallery images are dropped from the ranking of each query."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.files.npz import check_array, read_npz
from murank.files.urls import refuse_url


@dataclass(frozen=True, eq=False)
class DropMask:
    """What evaluators take as `drop`; rows are looked up as they are needed."""

    file: Path
    mask: NDArray[np.bool_]  # [Q,G] true: dropped
    sha256: str  # of the mask

    def __call__(self, queries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the rows of queries [b]."""
        return self.mask[queries]

    def __str__(self) -> str:
        return str(self.file)

    def check(self, num_query: int, num_gallery: int) -> None:
        """Raise InputError unless there is a row a query and a column a gallery image."""
        if self.mask.shape != (num_query, num_gallery):
            raise InputError(
                f"{self.file}: drop is {list(self.mask.shape)}, but there are {num_query} queries "
                f"and {num_gallery} gallery images"
            )

    def to_json(self) -> str:
        """The file, and what was in it."""
        return f"{self.file} (sha256 {self.sha256})"


def load_drop_mask(path: str | os.PathLike[str]) -> DropMask:
    """Read the booleans `drop` [Q,G] of an .npz; they may stay in the file. Raises InputError."""
    refuse_url(path)
    file = Path(path)
    mask = read_npz(file, ("drop",), mapped=("drop",))["drop"]
    check_array(mask, f"{file}: drop", kinds="b", shape=(None, None))
    return DropMask(file, mask, hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest())

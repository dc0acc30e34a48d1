"""The pairs whose mu is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.jobs.desk import Desk
from murank.jobs.image_contents import NoContent
from murank.jobs.stage import file_stat
from murank.journal.journal import Digest, Stat

Contents = Sequence[Digest | NoContent]


@dataclass(frozen=True)
class Pairs:
    """Queries and their candidates, as images."""

    query_paths: Sequence[Path]  # [Q]
    gallery_paths: Sequence[Path]  # [G]
    candidates: NDArray[np.int64]  # [Q,K] gallery indices, nearest first
    distances: NDArray[np.float32]  # [Q,K] of the unit features, in [0,2]
    digests: tuple[Sequence[Digest], Sequence[Digest]] | None = None  # [Q], [G], where known

    def neutral_mu(self) -> NDArray[np.float32]:
        """Return a new array [Q,K] of the mu that leave the pairs where the encoder puts them.

        Fusion takes (1 - alpha) d + alpha 2 mu for a candidate at distance d: with mu = d / 2
        that is d, whatever alpha is. Rounding may put d a little above 2, and mu never above 1.
        """
        return np.minimum(self.distances / 2, np.float32(1))

    def check(self, *, strict: bool) -> None:
        """Raise InputError if no image is there at all; with `strict`, if one is not."""
        if self.digests is not None:
            return
        missing = [path for path, stat in self._stats.items() if stat is None]
        if len(missing) == len(self._stats) or (missing and strict):
            raise InputError(
                f"{missing[0]}: no such file ({len(missing)} of {len(self._stats)} images to "
                "be scored are missing); relative paths in a features file start at --image-root"
            )

    def contents(self, desk: Desk) -> tuple[Contents, dict[int, Digest | NoContent]]:
        """Return the contents of all queries, and of the candidates by gallery index."""
        used = np.unique(self.candidates).tolist()
        if self.digests is not None:
            queries, gallery = self.digests
            return queries, {row: gallery[row] for row in used}
        found = desk.contents_of([*self._stats], self._stats)
        return (
            [found[path] for path in self.query_paths],
            {row: found[self.gallery_paths[row]] for row in used},
        )

    @cached_property
    def _stats(self) -> dict[Path, Stat | None]:
        used = np.unique(self.candidates).tolist()
        paths = [*self.query_paths, *(self.gallery_paths[row] for row in used)]
        return {path: file_stat(path) for path in dict.fromkeys(paths)}

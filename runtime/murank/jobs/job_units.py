"""What workers are asked, and what they answer: paths and contents travel, never pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from murank.journal.journal import Digest

OneOrder = Literal["given", "swapped"]


@dataclass(frozen=True)
class EmbedUnit:
    """Images to be embedded."""

    rows: tuple[int, ...]  # of the job
    paths: tuple[str, ...]

    @property
    def expected(self) -> "Sequence[Digest | None]":
        """What each file must hold: whatever it does."""
        return [None] * len(self.paths)

    def split(self) -> "Sequence[EmbedUnit]":
        """Return halves."""
        middle = len(self.rows) // 2
        if not middle:
            return []
        return [
            EmbedUnit(self.rows[part], self.paths[part])
            for part in (slice(middle), slice(middle, None))
        ]


@dataclass(frozen=True)
class Provenance:
    """What answered."""

    device: str
    providers: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class EmbedAnswer:
    """What was found in the files of an EmbedUnit, in its order."""

    digests: Sequence[Digest | None]  # None: it cannot be read
    unread: Mapping[int, str]  # why, by place
    refused: Mapping[Digest, str]  # contents that have no features
    embedded: Sequence[Digest]  # contents that have
    features: NDArray[np.float32]  # [len(embedded),D]
    made_by: Provenance


@dataclass(frozen=True)
class AskUnit:
    """Pairs of images to be asked about."""

    rows: tuple[int, ...]  # of the job, whose candidates they are
    paths: tuple[str, ...]  # of the images, each content once
    digests: tuple[Digest, ...]
    pairs: NDArray[np.int32]  # [n,2] places in `paths`, query first; pairs of one query together
    orders: Mapping[OneOrder, NDArray[np.bool_]]  # which pairs are wanted in it, [n]

    @property
    def expected(self) -> "Sequence[Digest | None]":
        """What each file must hold."""
        return self.digests

    def split(self) -> "Sequence[AskUnit]":
        """Return halves."""
        middle = len(self.pairs) // 2
        return [self._part(slice(middle)), self._part(slice(middle, None))] if middle else []

    def _part(self, part: slice) -> "AskUnit":
        places, pairs = np.unique(self.pairs[part], return_inverse=True)
        return replace(
            self,
            paths=tuple(self.paths[place] for place in places),
            digests=tuple(self.digests[place] for place in places),
            pairs=pairs.reshape(-1, 2).astype(np.int32),
            orders={order: wanted[part] for order, wanted in self.orders.items()},
        )


@dataclass(frozen=True)
class OrderAnswer:
    """Mu in one order."""

    mu: NDArray[np.float32]  # [n]; NaN where there is no answer, or none was wanted
    reasons: Mapping[int, str]  # why a pair has none though both images can be used, by place


@dataclass(frozen=True)
class AskAnswer:
    """What was said of the pairs of an AskUnit."""

    orders: Mapping[OneOrder, OrderAnswer]
    unread: Mapping[int, str]  # images that cannot be read, by place
    refused: Mapping[int, str]  # images that are none, by place
    made_by: Provenance
    seen: tuple[int, int] = (0, 0)  # images whose tokens were looked up, and were computed

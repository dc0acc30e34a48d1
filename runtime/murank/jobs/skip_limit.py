"""How many images a job may leave out before it must be a mistake."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from murank._exceptions import InputError

_FEW, _SHARE, _IN_A_ROW = 20, 0.01, 100


@dataclass(frozen=True)
class SkipLimit:
    """What is allowed. `most` None: more than 1 % and more than 20 are too many, or 100 in a row.

    A folder that was unmounted, or a list of another data set, shows after a minute, not at the
    end.
    """

    most: int | None = None
    strict: bool = False  # none at all

    def check_pair(self, reason: str) -> None:
        """Raise InputError if a pair of usable images must have an answer, too."""
        if self.strict:
            raise InputError(f"{reason} (--strict)")

    def watch(self, total: int, *, in_order: bool = True) -> "Watch":
        """Return what counts among `total` images; `in_order`: their places are a list's."""
        return Watch(self, total, in_order=in_order)


DEFAULT_SKIPS = SkipLimit()


class Watch:
    """Counts images that are left out."""

    def __init__(self, limit: SkipLimit, total: int, *, in_order: bool) -> None:
        self._limit, self._in_order = limit, in_order
        self._is_out = np.zeros(total, bool)
        self._first: str | None = None

    def left_out(self, reasons: Mapping[int, str]) -> None:
        """Count images by their place. Raises InputError if these are too many."""
        if not reasons:
            return
        self._first = self._first or next(iter(reasons.values()))
        if self._limit.strict:
            raise InputError(f"{self._first} (--strict)")
        self._is_out[list(reasons)] = True
        count, total = int(self._is_out.sum()), len(self._is_out)
        if not self._too_many(count, total):
            return
        raise InputError(
            f"{count:,} of {total:,} images cannot be used, which is too many to go on; the "
            f"first: {self._first}; pass --max-skipped {total} to leave them out all the same"
        )

    def _too_many(self, count: int, total: int) -> bool:
        if self._limit.most is not None:
            return count > self._limit.most
        if count > max(_FEW, _SHARE * total):
            return True
        return self._in_order and count >= _IN_A_ROW and _longest_run(self._is_out) >= _IN_A_ROW


def _longest_run(flags: "np.typing.NDArray[np.bool_]") -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))

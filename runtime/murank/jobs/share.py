"""A share of a job, for one of several runs that know nothing of each other."""

import re
from dataclasses import dataclass

from murank._exceptions import InputError

_STEP = 8  # rows that stay together, where there are enough: batches are then those of a whole run


@dataclass(frozen=True)
class Share:
    """The `index`-th of `count`, from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read "2/3". Raises InputError for what is no share."""
        found = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text.strip())
        if found is None or int(found[1]) > int(found[2]):
            raise InputError(f"a share is written I/N with I from 1 to N, as 2/3; got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"share-{self.index}-of-{self.count}"

    def rows(self, total: int) -> range:
        """Return its part of `total` rows; all shares together have each once."""
        step = _STEP if total >= _STEP * self.count else 1
        steps = -(-total // step)
        first, last = (i * steps // self.count * step for i in (self.index - 1, self.index))
        return range(min(first, total), min(last, total))

"""How a gallery takes in, keeps and lets go; checked before a file is touched."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from murank.gallery.ready_shots import KEEPS, Keep
from murank.images.arguments import check_choice, check_number, check_whole

WhenFull = Literal["refuse", "drop-oldest"]


@dataclass(frozen=True)
class GallerySettings:
    """Those of `Gallery.open`. Raises InputError for what cannot be."""

    keep: Keep
    best_shots: int
    min_side: int
    max_rows: int | None
    when_full: WhenFull
    retention: timedelta | float | None
    align_within: timedelta | float

    def __post_init__(self) -> None:
        check_choice(self.keep, "keep", KEEPS)
        check_choice(self.when_full, "when_full", ("refuse", "drop-oldest"))
        check_whole(self.best_shots, "best_shots")
        check_whole(self.min_side, "min_side")
        if self.max_rows is not None:
            check_whole(self.max_rows, "max_rows")
        _ = self.stay_seconds, self.align_seconds

    @property
    def stay_seconds(self) -> float | None:
        """Seconds that a shot may stay."""
        return None if self.retention is None else _seconds(self.retention, "retention")

    @property
    def align_seconds(self) -> float:
        """Seconds after an erasure in which directions are fitted anew."""
        return _seconds(self.align_within, "align_within")


def _seconds(value: timedelta | float, name: str) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return check_number(value, name, above=0)

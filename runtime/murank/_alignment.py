"""Camera alignment of a feature set: what is asked for, what is done, and why."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from murank._arguments import check_whole
from murank._exceptions import InputError
from murank._features import FeatureSet
from murank._labels import Ids
from murank._methods import Progress, kernel_errors

Asked: TypeAlias = Literal["auto", "pairs", "mean", "off"]
Done: TypeAlias = Literal["pairs", "mean", "off"]
ASKED: tuple[Asked, ...] = ("auto", "pairs", "mean", "off")

ENOUGH_ROWS = 50
"""Gallery rows that a camera needs to count for `auto`."""

NOTICE = (
    "aligned: features were fitted to the cameras of the unlabelled gallery; published figures "
    "have --align-cameras off"
)


@dataclass(frozen=True)
class Alignment:
    """What is asked for."""

    level: Asked = "auto"
    dims: int | Literal["auto", "all"] = "auto"  # directions kept

    def __post_init__(self) -> None:
        """Raise InputError for what is no such thing."""
        if self.level not in ASKED:
            raise InputError(f"align_cameras must be one of {', '.join(ASKED)}, got {self.level!r}")
        if isinstance(self.dims, str) and self.dims not in ("auto", "all"):
            raise InputError(f"align_dims must be 'auto', 'all' or a number, got {self.dims!r}")
        if not isinstance(self.dims, str):
            check_whole(self.dims, "align_dims")

    def to_json(self) -> list[Any]:
        """What candidates depend on."""
        return [self.level, self.dims]


OFF = Alignment("off")


@dataclass(frozen=True)
class Fitted:
    """What was learnt of a gallery's cameras."""

    cameras: Any  # murank_kernels.CameraAlignment, None: rows stay as they are
    level: Done
    note: str | None = None  # why less than could be


@dataclass(frozen=True)
class Aligned:
    """A feature set after alignment, and what was done to it."""

    features: FeatureSet  # unit rows [N,P], or those given where nothing was done
    level: Done
    note: str | None = None  # why less than could be

    @property
    def label(self) -> str:
        """The name of its line in a table."""
        return f"aligned ({self.level}, {self.features.features.shape[1]})"

    @property
    def notes(self) -> list[str]:
        """What the reader of figures must know; why `auto` did nothing is no news to many."""
        if self.level == "off":
            return []
        return [NOTICE] if self.note is None else [NOTICE, self.note]

    def to_json(self, asked: Alignment) -> dict[str, Any]:
        """What a summary says."""
        return {
            "asked": asked.level,
            "level": self.level,
            "dims": int(self.features.features.shape[1]),
            "note": self.note,
        }


def align(features: FeatureSet, asked: Alignment, *, progress: Progress | None = None) -> Aligned:
    """Fit on the gallery rows, without their pids, and align all rows. Raises as `fit` does."""
    gallery = features.gallery
    fitted = fit(gallery.features, gallery.camids, asked, progress=progress)
    if fitted.cameras is None:
        return Aligned(features, fitted.level, fitted.note)
    with kernel_errors():
        rows = fitted.cameras.apply(features.features, features.camids)
    return Aligned(replace(features, features=rows), fitted.level, fitted.note)


def fit(
    features: NDArray[Any],
    camids: Ids | None,
    asked: Alignment,
    *,
    progress: Progress | None = None,
) -> Fitted:
    """Learn from a gallery's features [G,D] and camids [G].

    Raises
    ------
    InputError
        `pairs` or `mean` was asked for and there are no camids, or ones that cannot be used; `dims`
        is more than the features have.
    """
    level, why_off = _resolved(camids, asked)
    if level == "off" or camids is None:
        return Fitted(None, "off", why_off)
    from murank_kernels import AlignmentWarning, CameraAlignment

    dims = _dims(asked.dims, level, int(features.shape[1]))
    with kernel_errors(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AlignmentWarning)
        cameras = CameraAlignment.fit(features, camids, level=level, dims=dims, progress=progress)
    notes = [str(one.message) for one in caught if one.category is AlignmentWarning]
    return Fitted(cameras, cameras.level, notes[0] if notes else None)


def _resolved(camids: Ids | None, asked: Alignment) -> tuple[Done, str | None]:
    """Return what to do, and why `auto` does nothing."""
    if asked.level == "off":
        return "off", None
    if asked.level != "auto":
        if camids is None:
            raise InputError(
                f"--align-cameras {asked.level} needs camids, and the features have none; name "
                "them, or pass --align-cameras off"
            )
        return asked.level, None
    if camids is None:
        return "off", "not aligned: the features have no camids"
    if int(camids.min()) < 0:
        return "off", "not aligned: some camids are negative"
    _, counts = np.unique(camids, return_counts=True)
    if (counts >= ENOUGH_ROWS).sum() < 2:
        return "off", f"not aligned: fewer than two cameras have {ENOUGH_ROWS} gallery images"
    return "pairs", None


def _dims(asked: int | Literal["auto", "all"], level: Done, width: int) -> int | None:
    """Return directions to keep, None: all. By default a quarter, at least 128, with `pairs`."""
    if asked == "all" or (asked == "auto" and level == "mean"):
        return None
    if asked != "auto":
        return asked
    kept = max(128, width // 4)
    return kept if kept < width else None

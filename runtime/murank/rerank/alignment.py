"""Camera alignment of a feature set: what is asked for, what is done, and why."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.labels import Ids
from murank.files.atomic import write_files
from murank.files.npz import open_npz, read_npz
from murank.images.arguments import check_whole
from murank.rerank.features import FeatureSet, check_file
from murank.rerank.methods import Progress, kernel_errors
from murank.rerank.resume import Memory

if TYPE_CHECKING:
    from murank_kernels import CameraAlignment

Asked: TypeAlias = Literal["auto", "pairs", "mean", "off"]
Done: TypeAlias = Literal["pairs", "mean", "off"]
ASKED: tuple[Asked, ...] = ("auto", "pairs", "mean", "off")

AlignmentSource: TypeAlias = "str | os.PathLike[str] | CameraAlignment"

ENOUGH_ROWS = 50
"""Gallery rows that a camera needs to count for `auto`."""

NOTICE = (
    "aligned: features were fitted to the cameras of the unlabelled gallery; published figures "
    "are of unaligned ones"
)
GIVEN_NOTICE = (
    "aligned by {}, which was fitted to cameras without labels; published figures are of "
    "unaligned features"
)


@dataclass(frozen=True, eq=False)
class Given:
    """What was learnt beforehand."""

    cameras: Any  # murank_kernels.CameraAlignment
    name: str  # what messages call it

    @property
    def sha256(self) -> str:
        """Of all that it holds."""
        digest = hashlib.sha256()
        for name, array in sorted(self.cameras.to_arrays().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def check(self, dim: int, encoder_sha256: str | None) -> None:
        """Raise InputError unless it suits features of `dim` values, and their encoder if known."""
        made_for = self.cameras.encoder_sha256
        if None not in (made_for, encoder_sha256) and made_for != encoder_sha256:
            raise InputError(
                f"{self.name} is of another encoder than these features; fit one to them with "
                "murank align"
            )
        if self.cameras.dim != dim:
            raise InputError(
                f"{self.name} aligns features of {self.cameras.dim} values, and these have {dim}; "
                "fit one to them with murank align"
            )


@dataclass(frozen=True)
class Alignment:
    """What is asked for."""

    level: Asked = "auto"
    dims: int | Literal["auto", "all"] = "auto"  # directions kept
    given: Given | None = None  # instead of a fit

    def __post_init__(self) -> None:
        """Raise InputError for what is no such thing."""
        if self.level not in ASKED:
            raise InputError(f"align_cameras must be one of {', '.join(ASKED)}, got {self.level!r}")
        if isinstance(self.dims, str) and self.dims not in ("auto", "all"):
            raise InputError(f"align_dims must be 'auto', 'all' or a number, got {self.dims!r}")
        if not isinstance(self.dims, str):
            check_whole(self.dims, "align_dims")
        if self.given is not None and (self.level, self.dims) != ("auto", "auto"):
            raise InputError(
                f"{self.given.name} is fitted already: leave out alignment, or align_cameras and "
                "align_dims"
            )

    def check(self, *, dim: int, camids: Ids | None, encoder_sha256: str | None = None) -> None:
        """Raise what `fit` would, before there are features: of `dim` values, gallery `camids`."""
        if self.given is not None:
            self.given.check(dim, encoder_sha256)
            return
        level, _ = _resolved(camids, self)
        if level != "off":
            _dims(self.dims, level, dim)

    @property
    def asked(self) -> str:
        """What a summary calls it."""
        return self.level if self.given is None else "given"

    def to_json(self) -> list[Any]:
        """What candidates depend on."""
        return [self.level, self.dims] if self.given is None else [self.asked, self.given.sha256]


OFF = Alignment("off")


@dataclass(frozen=True)
class Fitted:
    """What was learnt of a gallery's cameras."""

    cameras: Any  # murank_kernels.CameraAlignment, None: rows stay as they are
    level: Done
    note: str | None = None  # why less than could be
    file: str | None = None  # where it was learnt beforehand

    @property
    def why_not(self) -> list[str]:
        """Why `auto` did nothing, in a line; none: it did, or nothing was asked for."""
        return [self.note] if self.level == "off" and self.note is not None else []

    def apply(self, features: NDArray[Any], camids: Ids | None) -> NDArray[Any]:
        """Return aligned rows, or those given where nothing is done. Raises InputError.

        A camid below 0 is that of an unknown camera.
        """
        if self.cameras is None:
            return features
        with kernel_errors():
            rows: NDArray[Any] = self.cameras.apply(features, camids)
        return rows

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` takes, of a fit that did something."""
        return {**self.cameras.to_arrays(), "note": np.array(self.note or "")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Fitted":
        """Return what was learnt by an earlier fit."""
        from murank_kernels import CameraAlignment

        learnt = {name: array for name, array in arrays.items() if name != "note"}
        cameras = CameraAlignment.from_arrays(learnt, "alignment")
        return cls(cameras, cameras.level, str(arrays["note"]) or None)

    def to_json(self, asked: Alignment, dims: int) -> dict[str, Any]:
        """What a summary says; `dims` is the width of an aligned row."""
        return {
            "asked": asked.asked, "file": self.file, "level": self.level, "dims": dims,
            "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True)
class Aligned:
    """A feature set after alignment, and what was done to it."""

    features: FeatureSet  # unit rows [N,P], or those given where nothing was done
    fitted: Fitted

    @property
    def level(self) -> Done:
        """What was done."""
        return self.fitted.level

    @property
    def note(self) -> str | None:
        """Why less than could be."""
        return self.fitted.note

    @property
    def label(self) -> str:
        """The name of its line in a table."""
        return f"aligned ({self.level}, {self.features.features.shape[1]})"

    @property
    def notes(self) -> list[str]:
        """What the reader of figures must know; why `auto` did nothing is no news to many."""
        if self.level == "off":
            return []
        file = self.fitted.file
        notice = NOTICE if file is None else GIVEN_NOTICE.format(file)
        return [notice] if self.note is None else [notice, self.note]

    def to_json(self, asked: Alignment) -> dict[str, Any]:
        """What a summary says."""
        return self.fitted.to_json(asked, int(self.features.features.shape[1]))


def align(
    features: FeatureSet, asked: Alignment, *, progress: Progress | None = None,
    memory: Memory | None = None,
) -> Aligned:  # fmt: skip
    """Fit on the gallery rows, without their pids, and align all rows. Raises as `fit` does."""
    part = None if memory is None else memory.part("alignment")
    known = None if part is None else part.load()
    if known is not None:
        return aligned_by(Fitted.from_arrays(known), features)
    fitted = fit_gallery(features, asked, progress=progress)
    if part is not None and fitted.cameras is not None and asked.given is None and part.due():
        part.save(fitted.to_arrays())
    return aligned_by(fitted, features)


def fit_gallery(
    features: FeatureSet, asked: Alignment, *, progress: Progress | None = None, **pairs: Any
) -> Fitted:
    """Learn from the gallery rows, without their pids. Raises as `fit` does."""
    gallery = features.gallery
    return fit(
        gallery.features, gallery.camids, asked, encoder_sha256=features.encoder_sha256,
        progress=progress, **pairs,
    )  # fmt: skip


def aligned_by(fitted: Fitted, features: FeatureSet) -> Aligned:
    """Align all rows."""
    if fitted.cameras is None:
        return Aligned(features, fitted)
    rows = fitted.apply(features.features, features.camids)
    if fitted.note in (None, _unknown(features.gallery.camids)):
        fitted = replace(fitted, note=_unknown(features.camids))
    return Aligned(replace(features, features=rows), fitted)


def fit(
    features: NDArray[Any],
    camids: Ids | None,
    asked: Alignment,
    *,
    encoder_sha256: str | None = None,
    pairs: NDArray[Any] | None = None,
    weights: NDArray[Any] | None = None,
    progress: Progress | None = None,
    rows: str = "gallery images",
) -> Fitted:
    """Learn from a gallery's features [G,D] and camids [G], or take what is given.

    `encoder_sha256` is of the encoder that made the features; `pairs` [P,2] and their `weights` [P]
    are used instead of those that would be found; `rows` are what notes call the rows.

    Raises
    ------
    InputError
        `pairs` or `mean` was asked for and there are no camids, or ones that cannot be used; `dims`
        is more than the features have; what is given is of another encoder.
    """
    if asked.given is not None:
        asked.given.check(int(features.shape[1]), encoder_sha256)
        cameras = asked.given.cameras
        return Fitted(cameras, cameras.level, _why_common(camids, cameras), asked.given.name)
    level, why_off = _resolved(camids, asked, rows)
    if level == "off" or camids is None:
        return Fitted(None, "off", why_off)
    from murank_kernels import CameraAlignment

    dims = _dims(asked.dims, level, int(features.shape[1]))
    with kernel_errors():
        cameras = CameraAlignment.fit(
            features, camids, level=level, dims=dims, pairs=pairs, weights=weights,
            encoder_sha256=encoder_sha256, progress=progress, quiet=True,
        )  # fmt: skip
        note = cameras.fell_back or _unknown(camids)
        if asked.dims == "auto" and cameras.level != level:  # means alone want all directions
            cameras = CameraAlignment.fit(
                features, camids, level="mean", encoder_sha256=encoder_sha256
            )
    return Fitted(cameras, cameras.level, note)


def given_alignment(source: "AlignmentSource") -> Given:
    """Return what was learnt beforehand, from its file or as it is. Raises InputError."""
    from murank_kernels import CameraAlignment

    if isinstance(source, CameraAlignment):
        return Given(source, "alignment")
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(
            "alignment must be a file that murank align wrote, or a CameraAlignment, got "
            f"{type(source).__name__}"
        )
    return load_alignment(source)


def load_alignment(path: str | os.PathLike[str]) -> Given:
    """Read what `save_alignment` wrote. Raises InputError."""
    from murank_kernels import CameraAlignment

    file = Path(path)
    with open_npz(file) as archive:
        names = archive.files
    with kernel_errors():
        return Given(CameraAlignment.from_arrays(read_npz(file, names), str(file)), str(file))


def save_alignment(path: str | os.PathLike[str], cameras: Any, *, overwrite: bool = False) -> None:
    """Write a murank_kernels.CameraAlignment; nothing appears half written. Raises OutputError."""
    file = Path(path)
    check_file(file, overwrite=overwrite)
    arrays = cameras.to_arrays()
    write_files(file.parent, {file.name: lambda handle: np.savez(handle, **arrays)})


def _why_common(camids: Ids | None, cameras: Any) -> str | None:
    if camids is None:
        return "cameras are not known: the mean of all stands for each"
    strange = len(np.setdiff1d(camids[camids >= 0], cameras.camids))
    if not strange:
        return _unknown(camids)
    return f"cameras that are not known: {strange}; the mean of all stands for each"


def _unknown(camids: Ids | None) -> str | None:
    """Say how many rows of a feature set are of unknown cameras."""
    count = 0 if camids is None else int((camids < 0).sum())
    if not count:
        return None
    return f"images of unknown cameras (camid below 0): {count}; they get the mean of all"


def level_of(camids: Ids | None, asked: Alignment) -> Done:
    """Return what will be done, unless there are too few pairs. Raises InputError as `fit` does."""
    return _resolved(camids, asked)[0]


def _resolved(
    camids: Ids | None, asked: Alignment, rows: str = "gallery images"
) -> tuple[Done, str | None]:
    """Return what to do, and why `auto` does nothing."""
    if asked.level == "off":
        return "off", None
    if asked.level != "auto":
        if camids is None:
            raise InputError(
                f"align_cameras='{asked.level}' needs camids, and the features have none; name "
                "them, or leave the cameras unaligned"
            )
        if not (camids >= 0).any():
            raise InputError(
                f"align_cameras='{asked.level}' needs camids of 0 or more, and the gallery's "
                "are all below, which is unknown; number its cameras, or leave them unaligned"
            )
        return asked.level, None
    if camids is None:
        return "off", "not aligned: the features have no camids"
    _, counts = np.unique(camids[camids >= 0], return_counts=True)
    if (counts >= ENOUGH_ROWS).sum() < 2:
        return "off", f"not aligned: fewer than two cameras have {ENOUGH_ROWS} {rows}"
    return "pairs", None


def _dims(asked: int | Literal["auto", "all"], level: Done, width: int) -> int | None:
    """Return directions to keep, None: all. By default a quarter, at least 128, with `pairs`."""
    if asked == "all" or (asked == "auto" and level == "mean"):
        return None
    if asked != "auto":
        if asked > width:
            raise InputError(f"align_dims is {asked}, but features have {width} values a row")
        return asked
    kept = max(128, width // 4)
    return kept if kept < width else None

"""The alignment of a gallery: fitted on its units, kept in its file, and without the erased."""

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.gallery.gallery_file import GalleryFile
from murank.gallery.shot_records import F32
from murank.gallery.unit_features import CameraSums
from murank.rerank.alignment import Alignment, Fitted, fit

MOST_FITTED = 50_000  # units, evenly spread: directions do not get better by more


@dataclass(frozen=True)
class Version:
    """What is done to features; rows of two versions are never compared."""

    number: int
    fitted: Fitted
    units: int  # in the gallery when directions were fitted
    when: float  # seconds since the epoch
    is_whole: bool = True  # nobody who was erased has a part in the directions

    def apply(self, features: F32, cameras: NDArray[np.int64]) -> F32:
        """Align unit rows [n,D]; a camera below 0 is unknown."""
        if not len(features):
            return np.empty((0, self.dims(features.shape[1])), np.float32)
        rows: F32 = self.fitted.apply(features, cameras)
        return rows

    def dims(self, dim: int) -> int:
        """P, values of an aligned row."""
        return dim if self.fitted.cameras is None else int(self.fitted.cameras.dims)

    def to_bytes(self) -> bytes:
        """Return what the file keeps; nothing where nothing is done."""
        if self.fitted.cameras is None:
            return b""
        buffer = io.BytesIO()
        np.savez(buffer, **self.fitted.cameras.to_arrays())
        return buffer.getvalue()

    def without_erased(self, sums: CameraSums) -> "Version":
        """Return the next version: these means, the directions as they were."""
        cameras = with_means(self.fitted.cameras, sums)
        fitted = Fitted(None, "off") if cameras is None else replace(self.fitted, cameras=cameras)
        return replace(self, number=self.number + 1, fitted=fitted, is_whole=False)


def fitted_version(
    number: int, features: F32, cameras: NDArray[np.int64], sums: CameraSums, asked: Alignment,
    *, units: int, when: float, encoder_sha256: str | None,
) -> Version:  # fmt: skip
    """Fit on units [n] of which there are `units`, with the means of all. Raises InputError."""
    fitted = fit(features, cameras, asked, encoder_sha256=encoder_sha256, rows="tracks")
    if fitted.cameras is not None and asked.given is None:
        fitted = replace(fitted, cameras=with_means(fitted.cameras, sums))
    return Version(number, fitted, units, when)


def with_means(cameras: Any, sums: CameraSums) -> Any:
    """Return an alignment with other means and the same directions; None: of no unit."""
    camids, counts, totals = sums.arrays()
    if not len(camids):
        return None
    arrays = {**cameras.to_arrays(), "camids": camids, "counts": counts, "sums": totals}
    return type(cameras).from_arrays(arrays, "alignment")


def stored_version(file: GalleryFile) -> Version:
    """Return the version that the file has; the first one does nothing."""
    row = file.one(
        "SELECT version, arrays, units, fitted, is_whole FROM alignment ORDER BY version DESC"
    )
    if row is None:
        return Version(0, Fitted(None, "off"), 0, 0.0)
    number, data, units, when, is_whole = row
    fitted = Fitted(None, "off")
    if data:
        from murank_kernels import CameraAlignment

        arrays = dict(np.load(io.BytesIO(data), allow_pickle=False))
        cameras = CameraAlignment.from_arrays(arrays, str(file.path))
        fitted = Fitted(cameras, cameras.level)
    return Version(number, fitted, units, when, bool(is_whole))


def store_version(file: GalleryFile, version: Version) -> None:
    """Write it in the place of the one before; inside a transaction."""
    file.run("DELETE FROM alignment")
    file.run(
        "INSERT INTO alignment VALUES (?, ?, ?, ?, ?)",
        version.number, version.to_bytes(), version.units, version.when, version.is_whole,
    )  # fmt: skip

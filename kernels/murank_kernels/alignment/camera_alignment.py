"""Camera alignment: fitted without a label on a gallery, then applied to any rows."""

import os
import warnings
from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, F64, I64
from murank_kernels.alignment.alignment_file import as_arrays, from_arrays, read, write
from murank_kernels.alignment.arguments import as_cameras, as_known_cameras, as_pairs
from murank_kernels.alignment.fit import FitSettings, Fitted, Level, apply, fit
from murank_kernels.alignment.where import where_they_are
from murank_kernels.checks import validate
from murank_kernels.loops.parallel import Progress

MAX_ROWS = 2048


class AlignmentWarning(UserWarning):
    """An alignment does less than was asked for; the message says why."""


class CameraAlignment:
    """What cameras add to their images, learnt from unlabelled rows; made by `fit` or `load`.

    `mean` takes each camera's mean away. `pairs` also lets directions count less in which one
    person differs from camera to camera; who is one person is guessed: rows of two cameras that
    are among each other's three nearest, the farther beyond the nearest, the less they count.
    Safe to use from several threads, also while `update` is called.

    Sources: Song et al., "Exploring the Camera Bias of Person Re-identification", arXiv 2502.10195
    (means); Hatch et al., "Within-class covariance normalization", Interspeech 2006.
    """

    def __init__(self, fitted: Fitted, encoder_sha256: str | None) -> None:
        """For `fit` and `load` only."""
        self._fitted = fitted
        self._means = fitted.means  # replaced as a whole by `update`
        self._encoder_sha256 = encoder_sha256
        self._updating = Lock()

    @classmethod
    def fit(
        cls,
        features: ArrayLike,
        camids: ArrayLike,
        *,
        level: Level = "pairs",
        prior: float = 20,
        ridge: float = 1.0,
        dims: int | None = None,
        pairs: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        max_rows: int = MAX_ROWS,
        encoder_sha256: str | None = None,
        progress: Progress | None = None,
        quiet: bool = False,
    ) -> "CameraAlignment":
        """Learn from a gallery.

        Parameters
        ----------
        features : [N,D] float16, float32 or float64
            Encoder features of any scale; an array in a GPU's memory is worked on there.
        camids : [N] int
            Camera of each row. Below 0: unknown; such a row belongs to no camera and to no pair.
        level : "pairs" or "mean"
            With one camera, or with fewer than 32 pairs, `pairs` does what `mean` does and warns.
        prior : float
            A camera's mean is drawn towards the common mean as by so many rows of it.
        ridge : float
            Added to the variance of every direction, in units of their average; above 0. With fewer
            than 400 rows a camera, n on average over rows, times 400/n.
        dims : int or None
            Directions to keep: those in which aligned rows vary most. None: all D.
        pairs : [P,2] int or None
            Rows of `features` that show one person, instead of guessed ones.
        weights : [P] float or None
            How much each of `pairs` counts, not negative. None: all alike.
        max_rows : int
            Of a camera with more rows, as many, evenly spread, are searched for pairs; of one with
            fewer than 20, none.
        encoder_sha256 : str or None
            Of the encoder that made the features; `save` keeps it, `load` compares it.
        progress
            As in `k_reciprocal`.
        quiet : bool
            No warning: `fell_back` says the same.

        Warns AlignmentWarning where it falls back to `mean`.

        Raises
        ------
        InvalidInputError
            Before any work.
        """
        if level not in ("pairs", "mean"):
            raise InvalidInputError(f"level must be 'pairs' or 'mean', got {level!r}")
        prior = validate.as_not_negative(prior, "prior")
        ridge = validate.as_positive(ridge, "ridge")
        max_rows = validate.as_count(max_rows, "max_rows")
        num_rows = validate.num_rows(features)
        cameras = as_known_cameras(camids, num_rows)
        given = as_pairs(pairs, weights, num_rows)
        with where_they_are(features) as unit_rows:
            rows = unit_rows(features)
            kept = None if dims is None else _as_dims(dims, rows.dim)
            settings = FitSettings(level, prior, ridge, kept, max_rows)
            fitted = fit(rows, cameras, given, settings, progress)
        alignment = cls(fitted, encoder_sha256)
        if alignment.fell_back is not None and not quiet:
            warnings.warn(alignment.fell_back, AlignmentWarning, stacklevel=2)
        return alignment

    @property
    def level(self) -> Level:
        """What is done; "mean" also where `pairs` fell back to it."""
        return self._fitted.level

    @property
    def fell_back(self) -> str | None:
        """Why `level` is less than was asked for; None: it is not."""
        why = self._fitted.fell_back
        return None if why is None else f"only the cameras' means are aligned: {why}"

    @property
    def dim(self) -> int:
        """D, values of a row to be aligned."""
        return int(self._means.sums.shape[1])

    @property
    def dims(self) -> int:
        """P, values of an aligned row."""
        return self.dim if self._fitted.matrix is None else int(self._fitted.matrix.shape[1])

    @property
    def camids(self) -> I64:
        """[C] cameras seen, ascending."""
        return self._means.camids.copy()

    @property
    def counts(self) -> F64:
        """[C] rows seen of each of `camids`; with a half-life, older ones count less."""
        return self._means.counts.copy()

    @property
    def pairs(self) -> I64:
        """[P,2] fitted rows taken as one person; none for `mean`, and none once loaded."""
        pairs = self._fitted.pairs
        return np.empty((0, 2), np.int64) if pairs is None else pairs.rows.copy()

    @property
    def weights(self) -> F64:
        """[P] how much each of `pairs` counts."""
        pairs = self._fitted.pairs
        return np.empty(0) if pairs is None else pairs.weights.copy()

    def pair_shares(self, features: ArrayLike, camids: ArrayLike) -> F64:
        """Return [P] how much of the variance between cameras comes from each of `pairs`; sum 1.

        A pair counts by its weight and its squared distance: the largest ones decide which
        directions count less, and a wrong pair is one of them more often than a right one.

        Parameters
        ----------
        features, camids
            Those that were fitted.

        Raises InvalidInputError.
        """
        pairs = self._fitted.pairs
        if pairs is None:
            return np.empty(0)
        num_rows = validate.num_rows(features)
        if num_rows <= pairs.rows.max():
            raise InvalidInputError(f"pairs are of rows up to {pairs.rows.max()}, got {num_rows}")
        cameras = as_cameras(camids, num_rows)
        with where_they_are(features) as unit_rows:
            rows = unit_rows(self._of_our_width(features))
            parts = pairs.weights * self._means.centred(rows, cameras).gap_squares(pairs)
        total = parts.sum()
        return parts / total if total > 0 else parts

    @property
    def encoder_sha256(self) -> str | None:
        """Of the encoder whose features were fitted, where that is known."""
        return self._encoder_sha256

    def apply(self, features: ArrayLike, camids: ArrayLike | None = None) -> F32:
        """Align rows.

        Parameters
        ----------
        features : [N,D] float16, float32 or float64
        camids : [N] int or None
            Camera of each row. Those never seen, unknown ones (below 0), and None get the common
            mean.

        Returns
        -------
        [N,P] float32 rows of unit length, in the given order, where `features` are: on the GPU a
        CuPy array. A row without a direction of its own,
        because it is its camera's mean, keeps the mean's.

        Raises InvalidInputError.
        """
        num_rows = validate.num_rows(features)
        cameras = np.full(num_rows, -1) if camids is None else as_cameras(camids, num_rows)
        with where_they_are(features) as unit_rows:
            rows = unit_rows(self._of_our_width(features))
            found: F32 = apply(rows, cameras, self._means, self._fitted.matrix).give()
        return found

    def update(
        self, features: ArrayLike, camids: ArrayLike, *, half_life: float | None = None
    ) -> "CameraAlignment":
        """Add rows to the cameras' means, in their order; directions stay as fitted.

        Parameters
        ----------
        features : [N,D] float16, float32 or float64
        camids : [N] int
            Camera of each row; new ones are welcome. A row of an unknown one (below 0) is passed
            over.
        half_life : float or None
            Rows of its camera after which a row counts half, for light that changes. None: all
            rows count alike.

        Returns itself. Raises InvalidInputError, and nothing has changed.
        """
        if half_life is not None:
            half_life = validate.as_positive(half_life, "half_life")
        cameras = as_cameras(camids, validate.num_rows(features))
        with where_they_are(features) as unit_rows, self._updating:
            rows = unit_rows(self._of_our_width(features))
            self._means = self._means.with_rows(rows, cameras, half_life)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz, aside and renamed: means, matrix, encoder; no row of the gallery.

        A camera's mean tells what its images have in common, not who was seen; with few images of
        a camera it is close to them. Raises OSError.
        """
        write(path, self._means, self._fitted, self._encoder_sha256)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, encoder_sha256: str | None = None
    ) -> "CameraAlignment":
        """Read what `save` wrote; nothing pickled is loaded.

        Raises InvalidInputError: not such a file, damaged, or of another encoder than the one
        asked for; OSError.
        """
        fitted, encoder = read(path)
        if encoder_sha256 is not None and encoder != encoder_sha256:
            raise InvalidInputError(
                f"{path} is of the encoder {encoder or 'unknown'}, not of {encoder_sha256}: fit an "
                "alignment on this encoder's features"
            )
        return cls(fitted, encoder)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `save` writes, by name, for those who write files themselves."""
        return as_arrays(self._means, self._fitted, self._encoder_sha256)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> "CameraAlignment":
        """Make what `to_arrays` was of; `name` is what an error calls them.

        Raises InvalidInputError.
        """
        return cls(*from_arrays(arrays, name))

    def _of_our_width(self, features: ArrayLike) -> ArrayLike:
        width = validate.num_columns(features)
        if width != self.dim:
            raise InvalidInputError(
                f"features have {width} values a row, but this alignment was fitted on {self.dim}: "
                "is it of another encoder?"
            )
        return features


def align_cameras(
    features: ArrayLike,
    camids: ArrayLike,
    *,
    num_query: int = 0,
    level: Level = "pairs",
    dims: int | None = None,
) -> F32:
    """Fit on the gallery, the rows from `num_query` on, and align all rows.

    Parameters as in `CameraAlignment.fit` and `apply`. Returns [N,P] float32 rows of unit length,
    in the given order. Warns AlignmentWarning, raises InvalidInputError.
    """
    num_rows = validate.num_rows(features)
    cameras = as_cameras(camids, num_rows)
    first = validate.as_count(num_query, "num_query", least=0)
    if first >= num_rows:
        raise InvalidInputError(
            f"num_query is {first} but there are {num_rows} rows: at least one gallery row must "
            "follow"
        )
    if not validate.on_device(features):
        features = validate.as_features(features, normalize=True)
    gallery: Any = features
    alignment = CameraAlignment.fit(gallery[first:], cameras[first:], level=level, dims=dims)
    return alignment.apply(features, cameras)


def _as_dims(dims: int, width: int) -> int:
    value = validate.as_count(dims, "dims")
    if value > width:
        raise InvalidInputError(f"dims is {value}, but features have {width} values a row")
    return value

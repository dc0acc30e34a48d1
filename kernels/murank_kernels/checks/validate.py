"""Checks of what callers pass in: all of them before any work, one clear sentence each."""

import operator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, F64
from murank_kernels.checks.host_array import NO_ARRAY, copied_to_host, host_array
from murank_kernels.checks.host_array import on_device as on_device
from murank_kernels.loops.compiled import compiled, to_read

_MAX_ROWS = 2**31 - 1  # neighbour indices are int32
_LARGEST_LABEL = 2**63 - 1
LARGEST = 3e38  # distance that float32 still holds
_HALF_EPS = 2.0**-10
_ROWS_LOOKED_AT = 512
_ROWS_AT_ONCE = 4096
_MOST = 0.75  # features taken anew, as from flipped images, may give a few odd rows
_MAX_LENGTH = 1e18  # of a row whose squared distances fit float32


def check_products(products: str, device: str) -> None:
    """Raise InvalidInputError unless the device can multiply so."""
    if products not in ("float32", "tf32"):
        raise InvalidInputError(f"products must be 'float32' or 'tf32', got {products!r}")
    if products == "tf32" and device != "cuda":
        check_device(device)
        raise InvalidInputError(
            "products='tf32' is for device='cuda': a CPU multiplies in float32; leave it out"
        )


def as_array(value: ArrayLike, name: str) -> NDArray[Any]:
    """Return anything array-like in host memory as an array."""
    if on_device(value):
        raise InvalidInputError(
            f"{name} is in a GPU's memory: pass device='cuda' where that is offered, or copy it "
            "to host memory"
        )
    try:
        return host_array(value)
    except NO_ARRAY as error:
        raise InvalidInputError(f"{name} cannot be read as an array: {error}") from error


def num_rows(features: Any) -> int:
    """Return N of features [N,D], wherever they are."""
    return _shape(features)[0]


def num_columns(features: Any) -> int:
    """Return D of features [N,D], wherever they are."""
    return _shape(features)[1]


def _shape(features: Any) -> tuple[int, int]:
    given = features if on_device(features) else as_array(features, "features")
    shape = tuple(given.shape)
    if len(shape) != 2 or 0 in shape:
        raise InvalidInputError(f"features must have shape [N, D], got {shape}")
    if shape[0] > _MAX_ROWS:
        raise InvalidInputError(f"features has {shape[0]} rows, at most {_MAX_ROWS} work")
    return int(shape[0]), int(shape[1])


def as_features(features: ArrayLike, *, normalize: bool) -> NDArray[np.float32]:
    """Return features as contiguous float32 [N,D], rows of unit length if `normalize`."""
    given = as_array(features, "features")
    if given.dtype.kind != "f":
        raise InvalidInputError(
            f"features must be floating point, got {given.dtype}; pass features.astype('float32')"
        )
    dtype = given.dtype if given.dtype in (np.float32, np.float64) else np.dtype(np.float32)
    out = np.empty(given.shape, np.float32)
    norms = np.empty(len(given))
    for start in range(0, len(given), _ROWS_AT_ONCE):  # so that no second copy is made of all
        some = slice(start, start + _ROWS_AT_ONCE)
        rows = np.require(given[some], dtype, ["C", "ALIGNED"])
        _copy_rows(to_read(rows), normalize, out[some], norms[some])
    check_norms(given, norms, normalize=normalize)
    return out


@compiled(fastmath={"reassoc", "contract"})
def _copy_rows(given: NDArray[Any], normalize: bool, out: F32, norms: F64) -> None:
    """Copy rows, divided by their lengths if `normalize`; lengths in float64 do not overflow."""
    for i in range(given.shape[0]):
        total = 0.0
        for t in range(given.shape[1]):
            total += np.float64(given[i, t]) * np.float64(given[i, t])
        norms[i] = np.sqrt(total)
        divisor = norms[i] if normalize and norms[i] > 0 else 1.0
        for t in range(given.shape[1]):
            out[i, t] = given[i, t] / divisor


def check_norms(given: NDArray[Any], norms: F64, *, normalize: bool) -> None:
    """Raise unless rows of these lengths can be worked with; `given` is read to say why not."""
    bad = ~np.isfinite(norms)
    if bad.any():
        row = int(np.argmax(bad))
        what = "NaN" if np.isnan(given[row]).any() else "an infinite or far too large value"
        raise InvalidInputError(f"features row {row} holds {what}; remove that image")
    if normalize and (norms == 0).any():
        row = int(np.argmax(norms == 0))
        raise InvalidInputError(f"features row {row} is all zero and has no direction; remove it")
    if not normalize and norms.max() > _MAX_LENGTH:
        raise InvalidInputError("features are too large for float32 distances; normalise them")


def as_num_query(num_query: int, num_rows: int) -> int:
    """Return num_query as an int with 1 <= num_query < num_rows."""
    if len(getattr(num_query, "shape", ())):
        raise InvalidInputError(
            "num_query must be a whole number, got an array: features are one array, queries "
            "first, as np.concatenate([qf, gf]) with num_query=len(qf)"
        )
    value = as_count(num_query, "num_query")
    if value >= num_rows:
        raise InvalidInputError(
            f"num_query is {value} but there are {num_rows} rows: queries come first, and at "
            "least one gallery row must follow"
        )
    return value


def as_count(value: Any, name: str, *, least: int = 1) -> int:
    """Return a whole number of at least `least`."""
    try:
        count = least - 1 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        count = least - 1
    if count < least:
        raise InvalidInputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return count


def as_fraction(value: Any, name: str) -> float:
    """Return a real number in [0, 1]."""
    if not isinstance(value, Real | np.floating) or not 0 <= float(value) <= 1:
        raise InvalidInputError(f"{name} must be in [0, 1], got {value!r}")
    return float(value)


def as_not_negative(value: Any, name: str) -> float:
    """Return a finite real number of at least 0."""
    if not isinstance(value, Real | np.floating) or not 0 <= float(value) < np.inf:
        raise InvalidInputError(f"{name} must be finite and not negative, got {value!r}")
    return float(value)


def as_positive(value: Any, name: str) -> float:
    """Return a finite real number above 0."""
    if not isinstance(value, Real | np.floating) or not 0 < float(value) < np.inf:
        raise InvalidInputError(f"{name} must be finite and above 0, got {value!r}")
    return float(value)


def as_labels(labels: ArrayLike, name: str, length: int | None) -> NDArray[np.int64]:
    """Return integer labels [length] (None: any) as int64, wherever they are."""
    given = as_array(copied_to_host(labels), name)
    if given.dtype == object:  # as of a nullable column: what a list of its values would be
        given = as_array(given.tolist(), name)
    if given.ndim != 1 or length not in (None, len(given)):
        wanted = "N" if length is None else length
        raise InvalidInputError(f"{name} must have shape [{wanted}], got {given.shape}")
    if given.dtype.kind in "US":
        raise InvalidInputError(
            f"{name} must be integers, got text ({given.dtype}): number the names, those of "
            "queries and gallery at once, as with np.unique(names, return_inverse=True)"
        )
    if given.dtype.kind not in "iu" and given.size:
        raise InvalidInputError(f"{name} must be integers, got {given.dtype}; convert them")
    if given.dtype == np.uint64 and given.size and given.max() > _LARGEST_LABEL:
        raise InvalidInputError(f"{name} must be at most {_LARGEST_LABEL}, got {given.max()}")
    return given.astype(np.int64)


def as_matrix(
    distances: ArrayLike,
    name: str,
    shape: tuple[int, int] | None = None,
    *,
    limit: float | None = None,
) -> NDArray[Any]:
    """Return distances as a float32 or float64 matrix; with `limit`, none is NaN or beyond it."""
    given = as_array(distances, name)
    if given.ndim != 2 or 0 in given.shape:
        raise InvalidInputError(f"{name} must be a matrix, got shape {given.shape}")
    if shape is not None and given.shape != shape:
        raise InvalidInputError(f"{name} must have shape {list(shape)}, got {given.shape}")
    if given.dtype.kind not in "fiu":
        raise InvalidInputError(f"{name} must hold real numbers, got {given.dtype}")
    if given.dtype not in (np.float32, np.float64):
        given = given.astype(np.float32 if given.dtype == np.float16 else np.float64)
    # NaN fails a comparison, and no mask of the matrix's size is made.
    if limit is not None and not (-limit < given.min() and given.max() < limit):
        raise InvalidInputError(
            f"{name} must be without NaN and between -{limit:.0e} and {limit:.0e}, found "
            f"{given.min()}..{given.max()}"
        )
    return given


def check_not_negative(distances: NDArray[Any], name: str, convert: str) -> None:
    """Raise if a distance is negative, and not by rounding alone.

    1 - cosine, in float16, is off by the rounding of 1. `convert` says how similarities are passed.
    """
    least, largest = float(distances.min()), float(distances.max())
    if least < -_HALF_EPS * max(1.0, largest):
        raise InvalidInputError(
            f"{name} holds {least:.4g}, and a distance is not negative: {convert}"
        )


def check_self_distances(distances: NDArray[Any], name: str, convert: str) -> None:
    """Raise if most rows of a square matrix, of those that tell, are nearest to all but themselves.

    A row of equal values tells nothing. Some of the rows are looked at.
    """
    count = len(distances)
    if count < 2:
        return
    rows = np.unique(np.linspace(0, count - 1, min(count, _ROWS_LOOKED_AT)).astype(np.int64))
    some = distances[rows].astype(np.float64)
    itself = some[np.arange(len(rows)), rows]
    others = (some.sum(axis=1) - itself) / (count - 1)
    told = some.max(axis=1) > some.min(axis=1)
    farther = told & (itself > others)
    if told.any() and farther.sum() > _MOST * told.sum():
        raise InvalidInputError(
            f"{name} holds similarities, by its diagonal: an item is at the least distance from "
            f"itself; {convert}"
        )


def check_device(device: str) -> None:
    """Raise unless `device` is the CPU: a caller that offers "cuda" has looked for that before."""
    if device != "cpu":
        raise InvalidInputError(f"device must be 'cpu' or 'cuda', got {device!r}")

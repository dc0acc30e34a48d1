"""An alignment on disk: one .npz, nothing pickled."""

import os
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels.alignment.fit import Fitted, Level
from murank_kernels.alignment.means import CameraMeans

VERSION = 1
LEVELS: dict[str, Level] = {"pairs": "pairs", "mean": "mean"}
_REQUIRED = ("version", "level", "camids", "counts", "sums", "prior", "encoder_sha256")


def as_arrays(
    means: CameraMeans, fitted: Fitted, encoder_sha256: str | None
) -> dict[str, NDArray[Any]]:
    """Return what the file holds, by name."""
    arrays = {
        "version": np.array(VERSION),
        "level": np.array(fitted.level),
        "camids": means.camids,
        "counts": means.counts,
        "sums": means.sums,
        "prior": np.array(means.prior),
        "encoder_sha256": np.array(encoder_sha256 or ""),
    }
    return arrays if fitted.matrix is None else {**arrays, "matrix": fitted.matrix}


def write(
    path: str | os.PathLike[str], means: CameraMeans, fitted: Fitted, encoder_sha256: str | None
) -> None:
    """Write it aside, then give it its name."""
    aside = Path(f"{os.fspath(path)}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with aside.open("xb") as file:
            np.savez(file, **as_arrays(means, fitted, encoder_sha256))  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> tuple[Fitted, str | None]:
    """Read and check it; raises InvalidInputError, OSError."""
    try:
        with Path(path).open("rb") as stream, zipfile.ZipFile(stream) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise InvalidInputError(f"{path} is no alignment: `save` compresses nothing")
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
            arrays = {name: file[name] for name in (*_REQUIRED, "matrix") if name in file}
    except (ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{path} is no alignment: {error}") from error
    return from_arrays(arrays, str(path))


def from_arrays(arrays: Mapping[str, NDArray[Any]], path: str) -> tuple[Fitted, str | None]:
    """Check arrays of such a file."""
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise InvalidInputError(f"{path} is no alignment: it has no {missing[0]}")
    if arrays["version"].shape != () or arrays["version"] != VERSION:
        raise InvalidInputError(f"{path}: its version is not known here; fit it again")
    sums, matrix = arrays["sums"], arrays.get("matrix")
    shape = sums.shape if sums.ndim == 2 else (0, 0)
    wanted: list[tuple[str, str, tuple[int, ...]]] = [
        ("level", "U", ()), ("prior", "f", ()), ("encoder_sha256", "U", ()),
        ("sums", "f", shape), ("counts", "f", shape[:1]), ("camids", "i", shape[:1]),
    ]  # fmt: skip
    if matrix is not None:
        wanted.append(("matrix", "f", (shape[1], matrix.shape[-1] if matrix.ndim else 0)))
    for name, kind, expected in wanted:
        array = arrays[name]
        right = array.dtype.kind == kind and array.shape == expected and 0 not in expected
        if not right or (kind == "f" and not np.isfinite(array).all()):
            raise InvalidInputError(f"{path} is damaged: {name} cannot be right; fit it again")
    level, prior, camids, counts = (arrays[k] for k in ("level", "prior", "camids", "counts"))
    ascending = camids[0] >= 0 and (np.diff(camids) > 0).all()
    if str(level) not in LEVELS or prior < 0 or not (counts > 0).all() or not ascending:
        raise InvalidInputError(f"{path} is damaged: fit it again")
    means = CameraMeans(
        camids.astype(np.int64), counts.astype(np.float64), sums.astype(np.float64), float(prior)
    )
    fitted = Fitted(
        LEVELS[str(level)], means, None if matrix is None else matrix.astype(np.float32), None, None
    )
    return fitted, str(arrays["encoder_sha256"]) or None

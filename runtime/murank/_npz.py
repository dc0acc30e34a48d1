"""Reading .npz archives from elsewhere: nothing pickled, one clear sentence on each defect."""

import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from murank._exceptions import InputError

# What numpy and zipfile raise on bytes that are no archive, or no longer one. NotImplementedError
# and RuntimeError: a changed byte asks for an unknown compression, or for a password.
_DAMAGE = (
    OSError, EOFError, KeyError, ValueError, MemoryError, NotImplementedError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an archive; whatever is wrong with the file becomes an InputError that names it."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the .npz file in it")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    with file:
        try:
            archive = np.load(file, allow_pickle=False)
        except _DAMAGE as error:
            raise InputError(f"{path} is not an .npz archive, or it is truncated") from error
        if not isinstance(archive, NpzFile):
            raise InputError(f"{path} holds a single array; save it with np.savez and named arrays")
        with archive:
            yield archive


def read_npz(
    path: Path, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, NDArray[Any]]:
    """Return the named arrays of the archive; optional ones only where they are there."""
    with open_npz(path) as archive:
        missing = [key for key in required if key not in archive.files]
        if missing:
            found = ", ".join(archive.files) or "nothing"
            raise InputError(f"{path} lacks {', '.join(missing)}; it holds: {found}")
        wanted = [*required, *(key for key in optional if key in archive.files)]
        return {key: _read_array(archive, key, path) for key in wanted}


def _read_array(archive: NpzFile, key: str, path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = archive[key]
    except _DAMAGE as error:
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise InputError(
                f"{path}: '{key}' holds Python objects, which are not loaded because they can run "
                "code; save it with a plain dtype (str, int or float)"
            ) from error
        raise InputError(f"{path}: '{key}' is damaged, or too large for the memory") from error
    return array


def check_array(
    array: NDArray[Any], name: str, *, kinds: str, shape: tuple[int | None, ...]
) -> None:
    """Raise InputError unless the dtype's kind is one of `kinds` and the shape fits (None: any)."""
    words = {"f": "floating point", "iu": "integers", "U": "text"}
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} must be {words[kinds]}, got {array.dtype}")
    fits = array.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise InputError(f"{name} must have shape [{wanted}], got {list(array.shape)}")

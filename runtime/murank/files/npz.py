"""Reading .npz archives from elsewhere: nothing pickled, one clear sentence on each defect."""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.files.mapped import crc_of, mapped_array
from murank.files.other_formats import RECIPES, is_torch_archive, other_format
from murank.files.stand_in import check_no_stand_in
from murank.files.urls import refuse_url
from murank.machine.memory import available_bytes

# What numpy and zipfile raise on bytes that are no archive, or no longer one. NotImplementedError
# and RuntimeError: a changed byte asks for an unknown compression, or for a password.
_DAMAGE = (
    OSError, EOFError, KeyError, ValueError, OverflowError, MemoryError, NotImplementedError,
    RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Version 3 is of structured arrays with odd names, which nothing here takes.
_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, Any]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


MAPPED_FROM = 16 << 20  # bytes of an array that may stay in its file
_LOCAL_HEADER = 30  # bytes before a member's name and extra field, whose lengths are its last


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an archive; whatever is wrong with the file becomes an InputError that names it."""
    refuse_url(path)
    check_no_stand_in(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the .npz file in it")
    if not path.is_file():  # a FIFO would be waited for, a device never ends
        raise InputError(f"{path} is no regular file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    with file:
        try:
            what = other_format(path)
            if what is not None:
                raise _other(path, what)
            archive = NpzFile(file, allow_pickle=False)
            if is_torch_archive(archive.files):
                raise _other(path, "a PyTorch file")
        except InputError:
            raise
        except _DAMAGE as error:
            raise InputError(f"{path} is not an .npz archive, or it is truncated") from error
        with archive:
            if len(set(archive.files)) != len(archive.files):
                raise InputError(f"{path} holds two arrays of one name; save it again")
            yield archive


def _other(path: Path, what: str) -> InputError:
    return InputError(f"{path} is {what}, and murank reads .npz and .parquet: {RECIPES}")


def read_npz(
    path: Path,
    required: Collection[str],
    optional: Collection[str] = (),
    *,
    mapped: Collection[str] = (),
) -> dict[str, NDArray[Any]]:
    """Return the named arrays of the archive; optional ones only where they are there.

    Large ones among `mapped` stay in the file, if they are not compressed: see `mapped_array`.
    """
    with open_npz(path) as archive:
        missing = [key for key in required if key not in archive.files]
        if missing:
            names = ", ".join(archive.files) or "nothing"
            raise InputError(f"{path} lacks {', '.join(missing)}; it holds: {names}")
        wanted = [*required, *(key for key in optional if key in archive.files)]
        stays = {key for key in mapped if key in wanted and _can_stay(_member(archive, key))}
        _check_sizes(archive, wanted, path)
        return {
            key: (_map_array if key in stays else _read_array)(archive, key, path) for key in wanted
        }


def _can_stay(member: zipfile.ZipInfo) -> bool:
    is_plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
    return is_plain and member.file_size >= MAPPED_FROM


def _check_sizes(archive: NpzFile, wanted: Collection[str], path: Path) -> None:
    """Raise InputError unless each member is the array it declares, and all fit into the memory."""
    total = sum(_declared_bytes(archive, key, path) for key in wanted)
    free = available_bytes()
    if free is not None and total > free:
        raise InputError(
            f"{path}: {', '.join(wanted)} would take {total >> 20} MiB, and {free >> 20} MiB of "
            "memory are free"
        )


def _declared_bytes(archive: NpzFile, key: str, path: Path) -> int:
    """Return the bytes of an array by its header, which must agree with the archive's directory."""
    try:
        member = _member(archive, key)
        with _zip(archive).open(member) as file:
            if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
                raise InputError(f"{path}: '{key}' is no array; save it with np.savez")
            file.seek(0)
            read_header = _HEADERS[np.lib.format.read_magic(file)]
            shape, _, dtype = read_header(file)
            declared, stored = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path}: '{key}' is damaged") from error
    if dtype.hasobject:
        raise InputError(
            f"{path}: '{key}' holds Python objects, which are not loaded because they can run "
            "code; save it with a plain dtype (str, int or float)"
        )
    if min(shape, default=0) < 0 or declared != stored:
        raise InputError(f"{path}: '{key}' is damaged: it declares {declared} bytes, not {stored}")
    return int(declared)


def _zip(archive: NpzFile) -> zipfile.ZipFile:
    assert archive.zip is not None  # noqa: S101 - as long as it is open
    return archive.zip


def _member(archive: NpzFile, key: str) -> zipfile.ZipInfo:
    names = {info.filename.removesuffix(".npy"): info for info in _zip(archive).infolist()}
    return names[key]


def _read_array(archive: NpzFile, key: str, path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = archive[key]
    except _DAMAGE as error:
        raise InputError(f"{path}: '{key}' is damaged, or too large for the memory") from error
    return array


def _map_array(archive: NpzFile, key: str, path: Path) -> NDArray[Any]:
    """Map an array whose header has been checked. Raises InputError: its bytes are not its own."""
    member, file = _member(archive, key), _zip(archive).fp
    assert file is not None  # noqa: S101 - as long as it is open
    try:
        file.seek(member.header_offset)
        lengths = struct.unpack_from("<HH", file.read(_LOCAL_HEADER), _LOCAL_HEADER - 4)
        start = member.header_offset + _LOCAL_HEADER + sum(lengths)
        file.seek(start)
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
        end = file.tell()
        array = mapped_array(file, end, dtype, shape, "F" if fortran else "C")
        file.seek(start)
        crc = crc_of(array, zlib.crc32(file.read(end - start)))
    except (*_DAMAGE, struct.error, TypeError) as error:
        raise InputError(f"{path}: '{key}' is damaged") from error
    if crc != member.CRC:
        raise InputError(f"{path}: '{key}' is damaged")
    return array


def check_array(
    array: NDArray[Any], name: str, *, kinds: str, shape: tuple[int | None, ...]
) -> None:
    """Raise InputError unless the dtype's kind is one of `kinds` and the shape fits (None: any)."""
    words = {"f": "floating point", "iu": "integers", "U": "text", "b": "booleans"}
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} must be {words[kinds]}, got {array.dtype}")
    fits = array.ndim == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise InputError(f"{name} must have shape [{wanted}], got {list(array.shape)}")

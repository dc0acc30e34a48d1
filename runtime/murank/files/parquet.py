"""Parquet files from elsewhere: columns a batch at a time, one clear sentence on each defect.

pyarrow, the extra `parquet`, is loaded when a file is opened or written. It is given open files,
since it takes names in UTF-8 alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.checks.text import decodes, shown
from murank.files.stand_in import misread
from murank.machine.library import library, pip_install

SUFFIXES = (".parquet", ".pq")
_MAGIC = (b"PAR1", b"PARE")  # PARE: encrypted
_ROWS = 1 << 16  # of a batch
_MOST = np.iinfo(np.int64).max


def is_parquet(path: Path) -> bool:
    """Whether a file is, by its first bytes, or should be, by its name."""
    try:
        if not path.is_file():
            return False
        if path.suffix.lower() in SUFFIXES:
            return True
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:  # who reads it next tells
        return False


def pyarrow() -> Any:
    """Return the library. Raises MachineError if it is not there."""
    return library("pyarrow", "pyarrow.parquet", install=pip_install("parquet"))


@contextmanager
def open_parquet(path: Path) -> Iterator["ParquetTable"]:
    """Open a file; whatever is wrong with it becomes an InputError that names it."""
    api = pyarrow()
    try:
        file = path.open("rb")
    except OSError as error:
        raise misread(path, f": {error.strerror or error}") from error
    with file:
        magic = file.read(4)
        if magic == _MAGIC[1]:
            raise InputError(f"{path} is encrypted Parquet; write it without encryption")
        if magic != _MAGIC[0]:
            raise misread(path, " is no Parquet file, whatever its name says")
        file.seek(0)
        with _told(path, api):
            table = ParquetTable(path, api, file)
        yield table


class ParquetTable:
    """An open file: its columns by name, rows counted from 0."""

    def __init__(self, path: Path, api: Any, file: Any) -> None:
        self.path = path
        self._api = api
        self._file = api.parquet.ParquetFile(
            file, pre_buffer=False, page_checksum_verification=True
        )
        schema = self._file.schema_arrow
        self._types = dict(zip(schema.names, schema.types, strict=True))
        self.metadata: dict[bytes, bytes] = dict(self._file.metadata.metadata or {})
        self.num_rows = int(self._file.metadata.num_rows)
        names = list(schema.names)
        self.columns: list[str] = names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path} has two columns of the name {shown(twice)}")

    def others(self, known: Sequence[str]) -> list[str]:
        """Return the names of the columns that are not among `known`."""
        return [name for name in self.columns if name not in known]

    def check_text(self, name: str) -> None:
        """Raise InputError unless a column holds text."""
        if not self._is_text(self._plain_type(name)):
            raise self._wrong(name, "text")

    def check_ids(self, name: str) -> None:
        """Raise InputError unless a column holds integers or text."""
        kind = self._plain_type(name)
        if not (self._api.types.is_integer(kind) or self._is_text(kind)):
            raise self._wrong(name, "integers or text")

    def ids(self, name: str, column: Any, first: int) -> NDArray[np.int64] | list[str]:
        """Return ids of a batch, as they are. InputError names the row of a null."""
        if self._is_text(self._plain_type(name)):
            return self.texts(name, column, first)
        return self.integers(name, column, first)

    def list_dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a column of lists of floats. Raises InputError if it is none."""
        types, kind = self._api.types, self._types[name]
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if not is_list or not types.is_floating(kind.value_type):
            raise self._wrong(name, "lists of floats")
        dtype: np.dtype[Any] = np.dtype(kind.value_type.to_pandas_dtype())
        return dtype

    def batches(self, names: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
        """Yield the first row and the columns of each batch."""
        with _told(self.path, self._api):
            batches = self._file.iter_batches(_ROWS, columns=list(names), use_threads=False)
        first = 0
        while True:
            with _told(self.path, self._api):
                batch = next(batches, None)
            if batch is None:
                return
            if batch.num_rows:
                yield first, [self._decoded(batch.column(name)) for name in names]
            first += batch.num_rows

    def texts(self, name: str, column: Any, first: int) -> list[str]:
        """Return the values of a column of a batch. InputError names the row of a null."""
        self._check_nulls(name, column, first)
        try:
            values: list[str] = column.to_pylist()
        except UnicodeDecodeError as error:
            raw = column.cast(self._api.large_binary()).to_pylist()
            row = next(i for i, value in enumerate(raw) if not decodes(value))
            raise InputError(f"{self.path}, row {first + row}: {name} is not UTF-8") from error
        return values

    def numbers(self, name: str, column: Any, first: int) -> NDArray[Any]:
        """Return the values of a column of a batch. InputError names the row of a null."""
        self._check_nulls(name, column, first)
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values

    def integers(self, name: str, column: Any, first: int) -> NDArray[np.int64]:
        """Return the same as int64; what is beyond that is an InputError."""
        values = self.numbers(name, column, first)
        if values.dtype == np.uint64 and (values > _MOST).any():
            row = int(np.argmax(values > _MOST))
            raise InputError(f"{self.path}, row {first + row}: {name} is beyond 64 bits")
        return np.asarray(values, np.int64)

    def vectors(self, name: str, column: Any, first: int, length: int | None) -> NDArray[Any]:
        """Return lists of floats as rows, [n,length]; None: as long as the first one.

        InputError names the first row that is null, of another length, or not finite.
        """
        self._check_nulls(name, column, first)
        if self._api.types.is_fixed_size_list(column.type):
            lengths = np.full(len(column), column.type.list_size)
        else:
            lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        length = int(lengths[0]) if length is None else length
        if (lengths != length).any():
            row = int(np.argmax(lengths != length))
            raise InputError(
                f"{self.path}, row {first + row}: {name} has {lengths[row]} values, and those "
                f"before have {length}"
            )
        values = column.flatten()
        if values.null_count:
            row = _first_null(values) // max(length, 1)
            raise InputError(f"{self.path}, row {first + row}: {name} holds a null")
        rows: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(column), length)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            row = first + int(np.argmin(finite))
            raise InputError(f"{self.path}, row {row}: {name} holds NaN or infinity")
        return rows

    def _is_text(self, kind: Any) -> bool:
        types = self._api.types
        return bool(types.is_string(kind) or types.is_large_string(kind))

    def _plain_type(self, name: str) -> Any:
        kind = self._types[name]
        return kind.value_type if self._api.types.is_dictionary(kind) else kind

    def _decoded(self, column: Any) -> Any:
        is_coded = self._api.types.is_dictionary(column.type)
        return column.dictionary_decode() if is_coded else column

    def _check_nulls(self, name: str, column: Any, first: int) -> None:
        if column.null_count:
            raise InputError(f"{self.path}, row {first + _first_null(column)}: {name} is null")

    def _wrong(self, name: str, what: str) -> InputError:
        kind = shown(str(self._types[name]))
        return InputError(f"{self.path}: the column {name} should hold {what}, but is {kind}")


def named(names: Sequence[str], most: int = 5) -> str:
    """Return names for a sentence, the first of them."""
    return ", ".join([*map(str, names[:most]), *["..."] * (len(names) > most)])


def _first_null(column: Any) -> int:
    return int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))


@contextmanager
def _told(path: Path, api: Any) -> Iterator[None]:
    """Turn what the library raises on bytes that are no table, or not whole, into an InputError."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path} is damaged, or too large for the memory") from error
    except (api.lib.ArrowException, OSError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read as Parquet ({cause}); write it again") from error

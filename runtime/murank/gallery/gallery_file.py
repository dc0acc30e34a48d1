"""The file of a gallery: one connection, its transactions, and what is known of the whole."""

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.gallery.database import connect, file_errors, new_file
from murank.rerank.features import check_file

_MANY = 500  # values in one statement
I64 = NDArray[np.int64]


def checked(data: bytes) -> bytes:
    """Return what shows that stored bytes are those that were written."""
    return hashlib.blake2b(data, digest_size=8).digest()


class GalleryFile:
    """One connection; what it does is done under its lock, by one thread after the other."""

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path = path
        self._connection = connect(path, writes=writes)
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def meta(self, key: str) -> Any:
        """Return what is known of the file by this name, or None."""
        row = self.one("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else row[0]

    def set_meta(self, key: str, value: str | int | float) -> None:
        """Remember something of the file."""
        self.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    @property
    def dim(self) -> int:
        """Values of a feature."""
        return int(self.meta("dim"))

    @property
    def size(self) -> int:
        """Bytes of the file and what SQLite keeps beside it."""
        files = (self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm"))
        return sum(one.stat().st_size for one in files if one.exists())

    @property
    def generation(self) -> int:
        """How often the file was changed."""
        return int(self.meta("generation"))

    @property
    def data_version(self) -> int:
        """Another number whenever another connection has changed the file."""
        return int(self.one("PRAGMA data_version")[0])

    @contextmanager
    def writing(self) -> Iterator[int]:
        """A transaction that makes a new generation, which it yields."""
        with self.transaction():
            generation = self.generation + 1
            self.set_meta("generation", generation)
            yield generation

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what is inside wholly or not at all."""
        with self._lock, file_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let all that is read inside be of one generation."""
        with self._lock, file_errors(self.path):
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    def checkpoint(self) -> bool:
        """Empty the write-ahead log; whether that could be done: a reader may hold it open."""
        with self._lock, file_errors(self.path):
            busy, *_ = self.one("PRAGMA wal_checkpoint(TRUNCATE)")
            return not busy

    def copy_to(self, path: Path, *, overwrite: bool) -> None:
        """Write a copy of its present state, whole or not at all. Raises OutputError."""
        check_file(path, overwrite=overwrite)
        with self._lock:
            self.count("meta")  # it is open
            new_file(path, self._connection.backup)

    def count(self, table: str) -> int:
        """Return the rows of a table."""
        return int(self.one(f"SELECT count(*) FROM {table}")[0])  # noqa: S608  our own names

    def run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Run a statement."""
        with self._lock, file_errors(self.path):
            return self._connection.execute(statement, values)

    def many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row of values."""
        with self._lock, file_errors(self.path):
            self._connection.executemany(statement, rows)

    def one(self, statement: str, *values: Any) -> Any:
        """Return the first row of a statement, or None."""
        with self._lock:  # a statement that is not at its end would lock a checkpoint out
            cursor = self.run(statement, *values)
            row = cursor.fetchone()
            cursor.close()
        return row

    def all(self, statement: str, *values: Any) -> list[Any]:
        """Return all rows of a statement."""
        with self._lock:
            return self.run(statement, *values).fetchall()

    def each(self, statement: str, *values: Any) -> Iterator[Any]:
        """Yield rows that are too many or too large to be held together."""
        cursor = self.run(statement, *values)
        while rows := cursor.fetchmany(64):
            yield from rows

    def column(self, statement: str, values: Sequence[Any]) -> I64:
        """Return the first column [n] of a statement that ends in IN, whole numbers, ascending."""
        return np.sort(np.array(self.texts(statement, values), np.int64))

    def texts(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """Return the first column of a statement that ends in IN."""
        return [row[0] for row in self.rows_in(statement, values)]

    def rows_in(self, statement: str, values: Sequence[Any], then: str = "") -> list[Any]:
        """Return all rows of a statement that ends in IN, before what comes `then`."""
        found: list[Any] = []
        for start in range(0, len(values), _MANY):
            part = values[start : start + _MANY]
            marks = ",".join("?" * len(part))
            found += self.all(f"{statement} ({marks}) {then}", *part)
        return found

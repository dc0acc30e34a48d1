"""The file of a gallery: one SQLite database, and how it is opened."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import BadZipFile

from murank._exceptions import InputError, MachineError, MurankError, OutputError
from murank.files.aside import aside, sweep
from murank.files.atomic import sync
from murank.files.stand_in import misread

_APPLICATION = 0x6D75726B  # "murk"
_BUSY_SECONDS = 10.0

# shots   what was added, one image or feature each
# recent  their features, until they are sealed into a chunk; a table of its own, so that shots
#         stay small
# units   what is searched: the shots of one track of one camera
# gone    numbers of units that are no more, for readers
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE units (
    unit INTEGER PRIMARY KEY AUTOINCREMENT, track TEXT, camera INTEGER NOT NULL,
    first REAL NOT NULL, last REAL NOT NULL, shots INTEGER NOT NULL, changed INTEGER NOT NULL);
CREATE UNIQUE INDEX units_by_track ON units (track, camera) WHERE track IS NOT NULL;
CREATE INDEX units_by_change ON units (changed);
CREATE TABLE gone (unit INTEGER PRIMARY KEY, changed INTEGER NOT NULL);
CREATE INDEX gone_by_change ON gone (changed);
CREATE TABLE shots (
    shot INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, unit INTEGER NOT NULL,
    time REAL NOT NULL, subject TEXT, content BLOB NOT NULL,
    chunk INTEGER, place INTEGER);
CREATE INDEX shots_by_unit ON shots (unit);
CREATE INDEX shots_by_time ON shots (time);
CREATE INDEX shots_by_subject ON shots (subject) WHERE subject IS NOT NULL;
CREATE INDEX shots_by_chunk ON shots (chunk, place, unit) WHERE chunk IS NOT NULL;
CREATE TABLE recent (shot INTEGER PRIMARY KEY, feature BLOB NOT NULL, feature_check BLOB NOT NULL);
CREATE TABLE attributes (
    shot INTEGER NOT NULL, key TEXT NOT NULL, value NOT NULL, unit INTEGER NOT NULL,
    PRIMARY KEY (key, value, unit, shot)) WITHOUT ROWID;
CREATE INDEX attributes_by_shot ON attributes (shot);
CREATE TABLE pictures (
    shot INTEGER PRIMARY KEY, unit INTEGER NOT NULL, quality REAL NOT NULL, key TEXT,
    jpeg BLOB, tokens BLOB, picture_check BLOB NOT NULL);
CREATE INDEX pictures_by_unit ON pictures (unit, quality);
CREATE TABLE chunks (chunk INTEGER PRIMARY KEY AUTOINCREMENT, vectors BLOB NOT NULL,
    sha256 BLOB NOT NULL);
CREATE TABLE alignment (version INTEGER PRIMARY KEY, arrays BLOB NOT NULL, units INTEGER NOT NULL,
    fitted REAL NOT NULL, is_whole INTEGER NOT NULL);
"""
# mu         what the MLLM said of a unit and others, all of it in one value: searches read many
# pairs      of which two units, to find it from the other's side
# unrelated  units with pictures whose nearest are still to be asked about
_PAIRS = """
CREATE TABLE mu (unit INTEGER PRIMARY KEY, answers BLOB NOT NULL, answers_check BLOB NOT NULL);
CREATE TABLE pairs (other INTEGER NOT NULL, unit INTEGER NOT NULL, PRIMARY KEY (other, unit))
    WITHOUT ROWID;
CREATE INDEX pairs_by_unit ON pairs (unit);
CREATE TABLE unrelated (unit INTEGER PRIMARY KEY);
INSERT INTO unrelated SELECT DISTINCT unit FROM pictures;
"""
_STEPS = (_TABLES, _PAIRS)  # from no table to the format of each number
FORMAT = len(_STEPS)  # `user_version`; a newer one is refused, an older one migrated


def create(path: Path, meta: dict[str, str | int]) -> None:
    """Make a new file, its owner's alone, whole or not at all. Raises OutputError."""
    rows = list({**meta, "generation": 0}.items())

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        _migrate(connection, 0)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)

    new_file(path, fill)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring a file to this format, wholly or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    for step in _STEPS[version:]:
        for statement in step.split(";"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def new_file(path: Path, fill: Callable[[sqlite3.Connection], object]) -> None:
    """Write a database of the owner's alone, whole or not at all. Raises OutputError."""
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first")
    with file_errors(path):
        sweep(path.parent)
        with aside(path, lambda place: place.touch(0o600, exist_ok=False)) as place:
            with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as connection:
                # Nobody knows it yet: it is whole once it has its name.
                connection.execute("PRAGMA journal_mode = OFF").fetchone()
                fill(connection)
                connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            sync(place)
            place.replace(path)
        sync(path.parent)


def connect(path: Path, *, writes: bool, any_format: bool = False) -> sqlite3.Connection:
    """Open a file that is there; one of an older format to write it, or with `any_format`.

    Raises
    ------
    InputError
        It is no gallery, of a newer format, or damaged.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the file of a gallery")
    if not path.exists():
        raise InputError(f"{path} is no gallery: there is no such file")
    with file_errors(path):
        # On a disk that may not be written to SQLite reads a WAL file only if nobody writes it.
        immutable = not writes and not os.access(path.parent, os.W_OK)
        mode = "rw" if writes else "ro"
        uri = f"{path.absolute().as_uri()}?mode={mode}{'&immutable=1' if immutable else ''}"
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
        )
        try:
            version = _check(connection, path, may_be_old=writes or any_format)
            if writes:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
            for setting in ("synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
                connection.execute(f"PRAGMA {setting}").fetchone()
            if writes and version < FORMAT:
                _migrate(connection, version)
        except BaseException:
            connection.close()
            raise
    return connection


def _check(connection: sqlite3.Connection, path: Path, *, may_be_old: bool) -> int:
    """Return the format of the file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise InputError(f"{path} is another program's database, no gallery; name another file")
    if version > FORMAT:
        raise InputError(
            f"{path} has gallery format {version}, and this murank knows {FORMAT}: open it with "
            "the newer version"
        )
    if version < FORMAT and not may_be_old:
        raise InputError(
            f"{path} has gallery format {version}, and this murank writes {FORMAT}: open it for "
            "writing once, as with `murank gallery purge`"
        )
    return int(version)


def damaged(path: Path, what: object) -> InputError:
    """Return the error of a file that cannot be what was written."""
    return InputError(f"{path} is damaged: {what}; restore it from a backup")


@contextlib.contextmanager
def content_errors(path: Path) -> Iterator[None]:
    """Turn what content gives rise to that nobody wrote, while a file is opened, into one error.

    Features and crops have hashes of their own; numbers and names in SQLite's rows have none.
    """
    try:
        yield
    except MurankError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError, EOFError, BadZipFile) as error:
        raise damaged(path, error) from error


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say of the file into one of ours that names it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text or "I/O" in text or "readonly" in text:
            raise OutputError(f"cannot write {path}: {text}; nothing of it was stored") from error
        if "locked" in text:
            raise MachineError(f"{path} is busy: another process holds it; try again") from error
        raise InputError(f"cannot open {path}: {text}") from error
    except sqlite3.ProgrammingError as error:
        if "closed" not in str(error):
            raise
        raise InputError(f"{path} was closed: open it again") from error
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise misread(path, " is no gallery; name another file") from error
        raise damaged(path, error) from error
    except FileExistsError as error:
        raise OutputError(f"{path} is there already: open it, or name another file") from error
    except OSError as error:
        raise OutputError(f"cannot use {path}: {error.strerror or error}") from error

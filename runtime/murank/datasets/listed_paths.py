"""The paths of a list, each once: what .csv and Parquet have in common."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.known_names import column_role
from murank.files.parquet import named
from murank.files.urls import is_url, listed_url

COLUMNS = ("path", "pid", "camid", "clothes")
_NEEDED = COLUMNS[1:3]  # to be evaluated
_ARRAYS = dict(zip(COLUMNS, ("paths", "pids", "camids", "clothes"), strict=True))


@dataclass(frozen=True)
class ListedColumns:
    """Where the columns of a list are, whatever they are called."""

    places: Mapping[str, int]  # by our name
    notes: tuple[str, ...]  # on what others were taken for, or passed over


class ListedPaths:
    """Paths in order, as they are read."""

    def __init__(self, file: Path, word: str) -> None:
        """`word`: what `number` counts in the file, for messages."""
        self._file, self._word = file, word
        self._folder = os.fspath(file.parent / "_")[:-1]
        self._plain_folder = os.path.normpath(file.parent / "_")[:-1]
        self._first: dict[str, int] = {}  # path, in one way of writing it -> where
        self._paths: list[Path] = []

    def add(self, value: str, number: int) -> None:
        """Add a path; InputError names the row that cannot be used."""
        if not value.strip() or "\0" in value:
            raise self._error(number, "the path is empty or no path")
        if is_url(value):
            raise listed_url(f"{self._file}, {self._word} {number}", value)
        # By hand where it can be: there may be a million of them.
        is_whole = value[0] == "/"
        path = value if is_whole else self._folder + value
        known = value if is_whole else self._plain_folder + value
        before = self._first.setdefault(
            os.path.normpath(known) if _is_odd(value) else known, number
        )
        if before != number:
            raise self._error(number, f"{value} is already in {self._word} {before}")
        self._paths.append(Path(path))

    def whole(self) -> tuple[Path, ...]:
        """Return all paths. Raises InputError if there is none."""
        if not self._paths:
            raise InputError(f"{self._file} lists no image")
        return tuple(self._paths)

    def _error(self, number: int, what: str) -> InputError:
        return InputError(f"{self._file}, {self._word} {number}: {what}")


def columns_of(header: Sequence[str], file: Path) -> ListedColumns:
    """Find them by their names. Raises InputError: there are two of a kind."""
    places: dict[str, int] = {}
    for column, role in _ARRAYS.items():
        found = [place for place, name in enumerate(header) if column_role(name) == role]
        ours = [place for place in found if header[place].lower() == column]
        if len(ours or found) > 1:
            names = " and ".join(header[place] for place in ours or found)
            raise InputError(f"{file}: {names} may be the {column}: call one column {column}")
        if found:
            places[column] = (ours or found)[0]
    taken = [f"{header[place]} as {name}" for name, place in places.items()
             if header[place].lower() != name]  # fmt: skip
    others = [name for place, name in enumerate(header) if name and place not in places.values()]
    notes = [f"{file}: took {', '.join(taken)}"] * bool(taken)
    notes += [f"{file}: columns passed over: {named(others)}"] * bool(others)
    return ListedColumns(places, tuple(notes))


def why_unlabelled(file: Path, columns: list[str]) -> str | None:
    """Say which ids a list lacks; None: it has all."""
    missing = [column for column in _NEEDED if column not in columns]
    return f"{file} has no column {' and no column '.join(missing)}" if missing else None


def _is_odd(value: str) -> bool:
    """Whether a path may name what another path names."""
    return value[0] == "." or value[-1] == "/" or "/." in value or "//" in value

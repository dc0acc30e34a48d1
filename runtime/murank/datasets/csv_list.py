"""Image lists in .csv files: columns path, pid, camid."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.image_lists import ImageList

_COLUMNS = ("path", "pid", "camid")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")  # fits int64


def read_csv_list(file: Path) -> ImageList:
    """Read the list; InputError names the line that cannot be used."""
    rows = _rows(file)
    columns = _columns(next(rows, (1, []))[1], file)
    numbers: list[int] = []
    table: list[dict[str, str]] = []
    for number, values in rows:
        if len(values) != len(columns):
            raise InputError(
                f"{file}, line {number}: {len(values)} fields, but there are {len(columns)} columns"
            )
        numbers.append(number)
        table.append(dict(zip(columns, values, strict=True)))
    if not table:
        raise InputError(f"{file} lists no image")
    paths = _paths([row["path"] for row in table], numbers, file)
    pids, camids = (
        _integers([row[column] for row in table], column, numbers, file)
        if column in columns
        else None
        for column in _COLUMNS[1:]
    )
    missing = [column for column in _COLUMNS[1:] if column not in columns]
    why = f"{file} has no column {' and no column '.join(missing)}" if missing else None
    return ImageList(paths, pids, camids, unlabelled=why)


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields; blank lines are passed over."""
    # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 text") from error
        except csv.Error as error:
            raise InputError(f"{file}, line {reader.line_num}: {error}") from error


def _columns(header: list[str], file: Path) -> list[str]:
    columns = [name.strip() for name in header]
    known = len(set(columns)) == len(columns) and set(columns) <= set(_COLUMNS)
    if not known or "path" not in columns:
        raise InputError(
            f"{file}: the first line should name the columns, path and perhaps pid and camid, "
            f"with commas between them; it is {','.join(header)!r}"
        )
    return columns


def _paths(values: list[str], numbers: list[int], file: Path) -> tuple[Path, ...]:
    first: dict[str, int] = {}
    paths = []
    for number, value in zip(numbers, values, strict=True):
        if not value.strip() or "\0" in value:
            raise InputError(f"{file}, line {number}: the path is empty or no path")
        path = file.parent / value
        before = first.setdefault(os.path.normpath(path), number)
        if before != number:
            raise InputError(f"{file}, line {number}: {value} is already in line {before}")
        paths.append(path)
    return tuple(paths)


def _integers(values: list[str], column: str, numbers: list[int], file: Path) -> NDArray[np.int64]:
    for number, value in zip(numbers, values, strict=True):
        if not _INTEGER.fullmatch(value.strip()):
            raise InputError(f"{file}, line {number}: {column} should be an integer, got {value!r}")
    return np.array([int(value) for value in values], np.int64)

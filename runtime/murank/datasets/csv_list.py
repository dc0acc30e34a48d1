"""Image lists in .csv files: columns path, pid, camid, clothes."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from murank._exceptions import InputError
from murank.checks.text import decodes
from murank.datasets.image_lists import ImageList
from murank.datasets.listed_paths import COLUMNS, ListedPaths, why_unlabelled

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*", re.ASCII)  # fits int64


def read_csv_list(file: Path) -> ImageList:
    """Read the list; InputError names the line that cannot be used."""
    rows = _rows(file)
    columns = _columns(next(rows, (1, []))[1], file)
    place = columns.index("path")
    ids = [(columns.index(name), name) for name in COLUMNS[1:] if name in columns]
    paths = ListedPaths(file, "line")
    numbers: dict[str, list[int]] = {name: [] for _, name in ids}
    for number, values in rows:
        if len(values) != len(columns):
            raise InputError(
                f"{file}, line {number}: {len(values)} fields, but there are {len(columns)} columns"
            )
        paths.add(values[place], number)
        for column, name in ids:
            numbers[name].append(_integer(values[column], name, number, file))
    whole = paths.whole()
    pids, camids, clothes = (
        np.array(numbers[name], np.int64) if name in numbers else None for name in COLUMNS[1:]
    )
    return ImageList(whole, pids, camids, unlabelled=why_unlabelled(file, columns), clothes=clothes)


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
            raise InputError(f"{file}, line {_undecodable(file)}: is not UTF-8 text") from error
        except csv.Error as error:
            raise InputError(f"{file}, line {reader.line_num}: {error}") from error


def _undecodable(file: Path) -> int:
    """Return the first line that is no UTF-8; the decoder reads ahead of the lines."""
    with file.open("rb") as lines:
        return next((number for number, line in enumerate(lines, 1) if not decodes(line)), 1)


def _columns(header: list[str], file: Path) -> list[str]:
    columns = [name.strip() for name in header]
    known = len(set(columns)) == len(columns) and set(columns) <= set(COLUMNS)
    if not known or "path" not in columns:
        raise InputError(
            f"{file}: the first line should name the columns, path and perhaps pid and camid, "
            f"with commas between them; it is {','.join(header)!r}"
        )
    return columns


def _integer(value: str, column: str, number: int, file: Path) -> int:
    if not _INTEGER.fullmatch(value):
        raise InputError(f"{file}, line {number}: {column} should be an integer, got {value!r}")
    return int(value)

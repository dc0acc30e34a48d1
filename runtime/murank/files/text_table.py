"""Tables in text, as people and spreadsheets write them."""

import csv
from collections.abc import Iterator
from pathlib import Path

from murank._exceptions import InputError
from murank.checks.text import decodes
from murank.files.stand_in import check_no_stand_in

SUFFIXES = (".csv", ".tsv")
_DELIMITERS = ",;\t|"
_SAID = "sep="
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def text_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells, without blanks around them; the first row names the columns.

    Rows without any text are passed over. InputError names the line that is no row of a table:
    not of UTF-8 (or, with a byte order mark, UTF-16), or of another number of cells than the first.
    """
    check_no_stand_in(file)
    with file.open("rb") as raw:
        encoding = "utf-16" if raw.read(2) in _UTF16 else "utf-8-sig"
    with file.open(encoding=encoding, newline="") as lines:
        count, number = 0, 1
        try:
            delimiter = _delimiter(lines.readline().rstrip("\r\n"))
            lines.seek(0)
            reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
            for fields in reader:
                cells, number = [field.strip() for field in fields], reader.line_num
                if not any(cells) or cells[0] == _SAID:
                    continue
                count = count or len(cells)
                if len(cells) != count:
                    raise InputError(
                        f"{file}, line {number}: {len(cells)} fields, but there are {count} columns"
                    )
                yield number, cells
        except UnicodeError as error:
            line = _undecodable(file) if encoding != "utf-16" else number + 1
            raise InputError(f"{file}, line {line}: is not UTF-8 text") from error
        except csv.Error as error:
            raise InputError(f"{file}, line {reader.line_num}: {error}") from error


def text_lines(file: Path) -> list[str]:
    """Return the lines of a text file. InputError if it is none, or not of UTF-8."""
    check_no_stand_in(file)
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not a text file") from error


def _delimiter(header: str) -> str:
    """Return what stands between the names of columns; a line "sep=;" before these says it."""
    if header.startswith(_SAID) and len(header) == len(_SAID) + 1:
        return header[-1]
    return max(_DELIMITERS, key=lambda one: len(next(csv.reader([header], delimiter=one), [])))


def _undecodable(file: Path) -> int:
    """Return the first line that is no UTF-8; the decoder reads ahead of the lines."""
    with file.open("rb") as lines:
        return next((number for number, line in enumerate(lines, 1) if not decodes(line)), 1)

"""Image lists in .csv files: columns path, pid, camid, clothes, whatever they are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from murank._exceptions import InputError
from murank.checks.text import shown
from murank.datasets.image_lists import ImageList
from murank.datasets.known_names import column_role
from murank.datasets.labels import NO_CLOTHES
from murank.datasets.listed_paths import COLUMNS, ListedPaths, why_unlabelled
from murank.datasets.named_ids import names_in, note_of_names, number_of
from murank.files.parquet import named
from murank.files.text_table import text_rows

_ARRAYS = dict(zip(COLUMNS, ("paths", "pids", "camids", "clothes"), strict=True))


@dataclass(frozen=True)
class _Columns:
    """Where the columns of a list are."""

    places: Mapping[str, int]  # by our name
    notes: tuple[str, ...]  # on what others were taken for, or passed over


def read_csv_list(file: Path) -> ImageList:
    """Read the list; InputError names the line that cannot be used."""
    rows = text_rows(file)
    columns = _columns(next(rows, (1, []))[1], file)
    ids = [(columns.places[name], name) for name in COLUMNS[1:] if name in columns.places]
    paths = ListedPaths(file, "line")
    known: dict[str, int] = {}
    numbers: dict[str, list[int]] = {name: [] for _, name in ids}
    for line, cells in rows:
        paths.add(cells[columns.places["path"]], line)
        for place, name in ids:
            text = cells[place]
            if not text:
                numbers[name].append(_of_blank(name, f"{file}, line {line}"))
                continue
            if text not in known:
                known[text] = number_of(text)
            numbers[name].append(known[text])
    whole = paths.whole()
    pids, camids, clothes = (
        np.array(numbers[name], np.int64) if name in numbers else None for name in COLUMNS[1:]
    )
    names = tuple(sorted(names_in(known)))
    return ImageList(
        whole, pids, camids, (*columns.notes, *note_of_names(file, names)),
        why_unlabelled(file, [*columns.places]), clothes, names,
    )  # fmt: skip


def _columns(header: Sequence[str], file: Path) -> _Columns:
    places: dict[str, int] = {}
    for column, role in _ARRAYS.items():
        found = [place for place, name in enumerate(header) if column_role(name) == role]
        ours = [place for place in found if header[place].lower() == column]
        if len(ours or found) > 1:
            names = " and ".join(header[place] for place in ours or found)
            raise InputError(f"{file}: {names} may be the {column}: call one column {column}")
        if found:
            places[column] = (ours or found)[0]
    if "path" not in places:
        raise InputError(
            f"{file}: the first line should name the columns, path and perhaps pid, camid and "
            f"clothes; it is {shown(','.join(header))}"
        )
    taken = [f"{header[place]} as {name}" for name, place in places.items()
             if header[place].lower() != name]  # fmt: skip
    others = [name for place, name in enumerate(header) if name and place not in places.values()]
    notes = [f"{file}: took {', '.join(taken)}"] * bool(taken)
    notes += [f"{file}: columns passed over: {named(others)}"] * bool(others)
    return _Columns(places, tuple(notes))


def _of_blank(column: str, where: str) -> int:
    if column == "clothes":
        return NO_CLOTHES
    raise InputError(f"{where}: {column} is empty: fill it in, or leave out the row or the column")

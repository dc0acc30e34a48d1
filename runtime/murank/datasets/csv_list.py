"""Image lists in .csv files: columns path, pid, camid, clothes, whatever they are called."""

from pathlib import Path

import numpy as np

from murank._exceptions import InputError
from murank.checks.text import shown
from murank.datasets.image_lists import ImageList
from murank.datasets.labels import NO_CLOTHES
from murank.datasets.listed_paths import COLUMNS, ListedPaths, columns_of, why_unlabelled
from murank.datasets.named_ids import is_blank, names_in, note_of_names, number_of
from murank.files.text_table import text_rows


def read_csv_list(file: Path) -> ImageList:
    """Read the list; InputError names the line that cannot be used."""
    rows = text_rows(file)
    header = next(rows, (1, []))[1]
    columns = columns_of(header, file)
    if "path" not in columns.places:
        raise InputError(
            f"{file}: the first line should name the columns, path (or img_path, filename, ...) "
            f"and perhaps pid, camid and clothes; it is {shown(','.join(header))}"
        )
    ids = [(columns.places[name], name) for name in COLUMNS[1:] if name in columns.places]
    paths = ListedPaths(file, "line")
    known: dict[str, int] = {}
    numbers: dict[str, list[int]] = {name: [] for _, name in ids}
    for line, cells in rows:
        paths.add(cells[columns.places["path"]], line)
        for place, name in ids:
            text = cells[place]
            if text not in known:
                if is_blank(text):
                    numbers[name].append(_of_blank(name, text, f"{file}, line {line}"))
                    continue
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


def _of_blank(column: str, text: str, where: str) -> int:
    if column == "clothes":
        return NO_CLOTHES
    raise InputError(
        f"{where}: {column} is {text or 'empty'}: fill it in, or leave out the row or the column"
    )

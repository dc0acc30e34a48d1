"""Image lists in Parquet: columns path, pid, camid, clothes, whatever they are called."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.image_lists import ImageList
from murank.datasets.listed_paths import COLUMNS, ListedPaths, columns_of, why_unlabelled
from murank.datasets.named_ids import check_given, note_of_names, numbered
from murank.files.parquet import named, open_parquet


def read_parquet_list(file: Path) -> ImageList:
    """Read the list, a batch at a time; InputError names the row that cannot be used."""
    with open_parquet(file) as table:
        columns = columns_of(table.columns, file)
        if "path" not in columns.places:
            raise InputError(
                f"{file} has no column path; it has {named(table.columns) or 'no column'}: name "
                "them path (or img_path, filename, ...) and, where known, pid and camid"
            )
        called = {name: table.columns[place] for name, place in columns.places.items()}
        names = [name for name in COLUMNS if name in called]
        table.check_text(called["path"])
        for name in names[1:]:
            table.check_ids(called[name])
        paths = ListedPaths(file, "row")
        ids: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names[1:]}
        id_names: set[str] = set()
        for first, (texts, *columns_read) in table.batches([called[name] for name in names]):
            for number, value in enumerate(table.texts(called["path"], texts, first), first):
                paths.add(value, number)
            for name, column in zip(names[1:], columns_read, strict=True):
                values = table.ids(called[name], column, first)
                if isinstance(values, list):
                    check_given(values, f"{file}: {called[name]}", first)
                    values, found = numbered(values)
                    id_names.update(found)
                ids[name].append(values)
    whole = paths.whole()
    pids, camids, clothes = (
        np.concatenate(ids[name]) if name in ids else None for name in COLUMNS[1:]
    )
    known = tuple(sorted(id_names))
    return ImageList(
        whole, pids, camids, (*columns.notes, *note_of_names(file, known)),
        why_unlabelled(file, names), clothes, known,
    )  # fmt: skip

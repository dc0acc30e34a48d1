"""Image lists in Parquet: columns path, pid, camid, clothes; others are passed over."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.datasets.image_lists import ImageList
from murank.datasets.listed_paths import COLUMNS, ListedPaths, why_unlabelled
from murank.files.parquet import named, open_parquet


def read_parquet_list(file: Path) -> ImageList:
    """Read the list, a batch at a time; InputError names the row that cannot be used."""
    with open_parquet(file) as table:
        names = [name for name in COLUMNS if name in table.columns]
        others = table.others(COLUMNS)
        if "path" not in names:
            raise InputError(
                f"{file} has no column path; it has {named(others) or 'no column'}: name them "
                "path and, where known, pid and camid"
            )
        table.check_text("path")
        for name in names[1:]:
            table.check_integers(name)
        paths = ListedPaths(file, "row")
        ids: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names[1:]}
        for first, (texts, *columns) in table.batches(names):
            for number, value in enumerate(table.texts("path", texts, first), first):
                paths.add(value, number)
            for name, column in zip(names[1:], columns, strict=True):
                ids[name].append(table.integers(name, column, first))
    whole = paths.whole()
    pids, camids, clothes = (
        np.concatenate(ids[name]) if name in ids else None for name in COLUMNS[1:]
    )
    ignored = (f"{file}: columns passed over: {named(others)}",) if others else ()
    return ImageList(whole, pids, camids, ignored, why_unlabelled(file, names), clothes)

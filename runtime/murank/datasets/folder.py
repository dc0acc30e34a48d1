"""Images without a data set: a folder, or a list of them as .csv or Parquet."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.csv_list import read_csv_list
from murank.datasets.image_files import IMAGE_SUFFIXES, images_below
from murank.datasets.image_lists import Image, ImageList, image_list
from murank.datasets.market_style import parse_name
from murank.datasets.parquet_list import read_parquet_list
from murank.files.other_formats import other_format
from murank.files.parquet import is_parquet
from murank.files.text_table import SUFFIXES
from murank.files.urls import refuse_url

_SUFFIXES_NAMED = 5


def list_images(source: str | os.PathLike[str]) -> ImageList:
    """List the images of a folder, of a .csv or of a Parquet file.

    Parameters
    ----------
    source
        A folder: its images at any depth, sorted by path; hidden files and folders are passed over.
        Labelled if every single name begins PID_cCAM, as those of Market-1501 do (camera ids minus
        one, nothing is left out: pid -1 and 0 are people like others here).
        A .csv (or .tsv): its rows in order. The first line names the columns: path and, where
        known, pid, camid and clothes, or what others call these; a note names columns that are not
        used. Commas, semicolons or tabs; UTF-8, or UTF-16 with a byte order mark. Ids are integers,
        taken as they are, or names (see `named_ids`). Relative paths start at the folder of the
        .csv. Whether the files of a .csv are there is not looked up.
        Parquet, by its first bytes or the name .parquet: the same columns; a note names the others.

    Raises
    ------
    InputError
        The source cannot be read, holds no image, or a row of it cannot be used.
    MachineError
        It is Parquet, and pyarrow (the extra `parquet`) is not installed.
    """
    refuse_url(source)
    path = Path(source)
    try:
        if path.is_dir():
            return _list_folder(path)
        if is_parquet(path):
            return read_parquet_list(path)
        if path.suffix.lower() in SUFFIXES and path.is_file():
            return read_csv_list(path)
        if path.exists():
            what = other_format(path) if path.is_file() else None
            raise InputError(
                f"{path} is neither a folder of images nor a list of them (.csv, .parquet)"
                + (f", but {what}" if what else "")
            )
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror or error}") from error
    raise InputError(f"{path}: no such file or folder")


def _list_folder(folder: Path) -> ImageList:
    passed_over: Counter[str] = Counter()
    paths = images_below(folder, passed_over)
    if not paths:
        holds = f"; it holds {_counted(passed_over)}" if passed_over else ""
        raise InputError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}){holds}")
    labels = [parse_name(path.name) for path in paths]
    images = [
        Image(path, *label) for path, label in zip(paths, labels, strict=True) if label is not None
    ]
    notes = _passed_over(folder, passed_over)
    if len(images) == len(paths):
        return replace(image_list(images), notes=notes)
    odd = paths[labels.index(None)]
    why = (
        f"{folder} counts as unlabelled: of {len(paths):,} names {len(images):,} begin PID_cCAM, "
        f"and the first that does not is {odd}"
    )
    if images:  # it was meant to be labelled
        notes += (f"{why}; rename it, or take it out",)
    return ImageList(tuple(paths), None, None, notes, why)


def _passed_over(folder: Path, counts: Counter[str]) -> tuple[str, ...]:
    if not counts:
        return ()
    return (
        f"{folder}: {counts.total():,} files passed over, which have no suffix of an image "
        f"({_counted(counts)})",
    )


def _counted(counts: Counter[str]) -> str:
    suffixes = [f"{suffix} {number:,}" for suffix, number in counts.most_common(_SUFFIXES_NAMED)]
    return ", ".join([*suffixes, *["..."] * (len(counts) > _SUFFIXES_NAMED)])

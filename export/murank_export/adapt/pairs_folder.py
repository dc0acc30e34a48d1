"""The folder of mined pairs: lists for training and validation, and how they came to be."""

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from murank import OutputError
from murank._atomic import check_writable, made_folder, readable_errors, write_files
from murank.pairs import Pair, save_pairs

RECORD = "mining.json"
_NAMES = (RECORD, "train.json", "val.json", "random_train.json", "random_val.json")


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `write_folder` may not write there."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder")
    there = [name for name in _NAMES if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(f"{folder / there[0]} exists; pass --overwrite or another folder")
    check_writable(folder)


def write_folder(
    folder: Path, parts: Mapping[str, Sequence[Pair]], record: Mapping[str, Any]
) -> None:
    """Write <part>.json of each part and mining.json; older pairs there are replaced.

    All files are written aside before the first takes its place. mining.json goes first and comes
    last: where it is, the files beside it belong together.

    Raises
    ------
    OutputError
        The operating system refuses.
    """
    with readable_errors(folder), made_folder(folder):
        stage = folder / f".murank-{secrets.token_hex(8)}"
        stage.mkdir(mode=0o700)
        try:
            for part, pairs in parts.items():
                save_pairs(stage / f"{part}.json", pairs)
            text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
            write_files(stage, {RECORD: lambda out: out.write(text.encode())})
            for name in _NAMES:
                (folder / name).unlink(missing_ok=True)
            for part in parts:
                (stage / f"{part}.json").replace(folder / f"{part}.json")
            (stage / RECORD).replace(folder / RECORD)
            _sync(folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make the renames durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

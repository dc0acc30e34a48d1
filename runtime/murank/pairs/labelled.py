"""Labelled image pairs: what adaptation learns from, and calibration is measured by."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank._exceptions import InputError
from murank.datasets.labels import JUNK_PID
from murank.datasets.market_style import parse_name
from murank.files.atomic import write_files
from murank.files.stand_in import misread

_KEYS = {"query", "candidate", "match"}
_MATCH = {"Yes": True, "No": False}


@dataclass(frozen=True)
class Pair:
    """Two images, and whether they show the same person."""

    query: str  # path of an image, as it stands in the file
    candidate: str
    match: bool


def load_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """Read pairs: JSON, a list of {"query": path, "candidate": path, "match": "Yes" or "No"}.

    Raises
    ------
    InputError
        The file cannot be read, is no such JSON, or holds no pair.
    """
    file = Path(path)
    try:
        data = json.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise misread(file, f": {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise misread(file, f" is not UTF-8 JSON: {error}") from error
    if not isinstance(data, list) or not data:
        raise InputError(f"{file} must hold a list of at least one pair; make one with adapt mine")
    return [_pair(entry, f"{file}: pair {number}") for number, entry in enumerate(data)]


def save_pairs(path: str | os.PathLike[str], pairs: Iterable[Pair]) -> None:
    """Write pairs as `load_pairs` reads them; the file appears whole or not at all.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    file, data = Path(path), pairs_bytes(pairs)
    write_files(file.parent, {file.name: lambda out: out.write(data)})


def pairs_bytes(pairs: Iterable[Pair]) -> bytes:
    """Return what `save_pairs` writes."""
    entries = [
        {"query": pair.query, "candidate": pair.candidate, "match": "Yes" if pair.match else "No"}
        for pair in pairs
    ]
    text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]\n"
    # A name that is not UTF-8 reaches us with surrogates: JSON's escapes carry them.
    return text.encode(errors="backslashreplace")


def without_junk(pairs: Iterable[Pair]) -> list[Pair]:
    """Leave out pairs with an image whose Market-1501 name says pid -1: junk, of nobody known.

    Two of them share that pid without being one person, and a person's own may be among them.
    """
    return [pair for pair in pairs if not (_is_junk(pair.query) or _is_junk(pair.candidate))]


def _is_junk(path: str) -> bool:
    label = parse_name(Path(path).name)
    return label is not None and label[0] == JUNK_PID


def _pair(entry: Any, name: str) -> Pair:
    if not isinstance(entry, dict) or not entry.keys() >= _KEYS:
        raise InputError(f"{name} must be an object with query, candidate and match")
    query, candidate, match = (entry[key] for key in ("query", "candidate", "match"))
    if not isinstance(query, str) or not isinstance(candidate, str) or not (query and candidate):
        raise InputError(f"{name}: query and candidate must be paths")
    if not isinstance(match, str) or match not in _MATCH:
        raise InputError(f'{name}: match must be "Yes" or "No", got {match!r}')
    return Pair(query, candidate, _MATCH[match])

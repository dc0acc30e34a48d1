"""The JSON files of an engine folder, read strictly."""

import json
from pathlib import Path
from typing import Any, NoReturn

from murank.files.damage import damaged
from murank.files.plain import open_file

LARGEST_JSON = 4 << 20  # bytes
_DEEPEST = 32  # objects and lists inside each other


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    InputError
        It is missing, no regular file, above 4 MiB, or not UTF-8 JSON; or it holds a duplicate
        key, NaN, an infinity, or half of a surrogate pair.
    """
    return parse_json(read_bounded(path), path)


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a regular file of at most 4 MiB."""
    with open_file(path) as file:
        raw = file.read(LARGEST_JSON + 1)
    if len(raw) > LARGEST_JSON:
        raise damaged(path, f"it is over {LARGEST_JSON >> 20} MiB, too large for what it should be")
    return raw


def parse_json(raw: bytes, path: Path) -> Any:
    """Return what the bytes of a JSON file hold; `path` is for the message of InputError."""
    try:
        data = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
        _check_depth(data)
        write_json(data)  # 1e999 and "\\ud800" pass the reader, yet could not be written again
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON as murank writes it ({error})") from error
    return data


def write_json(data: Any) -> bytes:
    """Return UTF-8 JSON: keys in the order given, indented by two, a newline at the end."""
    return (json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(_DEEPEST + 1):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ValueError(f"over {_DEEPEST} objects and lists inside each other")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        members[key] = value
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")

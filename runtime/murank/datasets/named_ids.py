"""Persons, cameras and clothes that are named, not numbered: the number a name stands for."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.files.parquet import named

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?", re.ASCII)  # fits int64; tables write 3.0 for 3
_NO_TEXT = ("", "nan", "none", "null", "<na>")  # as tables in text write what is missing
_NAMED = 1 << 62  # beyond what anybody numbers


def is_blank(text: str) -> bool:
    """Whether an id is missing: it is empty, or what a table writes for that."""
    return text.lower() in _NO_TEXT


def check_given(texts: Sequence[str], what: str, first: int = 0) -> None:
    """Raise InputError that names the row if an id is missing; `first`: number of the first."""
    blank = next((row for row, text in enumerate(texts) if is_blank(text)), None)
    if blank is not None:
        raise InputError(f"{what}: row {first + blank} is {texts[blank] or 'empty'}: say who it is")


def number_of(name: str) -> int:
    """Return the number of an id that is text: its own where it is one, else that of a name.

    A name has the same number in every list, for ever: 61 bits of its sha256, behind 2**62. So
    lists that are read one by one agree, and what is kept of them too.
    """
    if _INTEGER.fullmatch(name):
        return int(name.split(".")[0])
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
    return _NAMED | int.from_bytes(digest[:8], "big") >> 3


def numbered(texts: Iterable[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the numbers of ids that are text, and which of them are names, each once."""
    known: dict[str, int] = {}
    numbers = [known[text] if text in known else known.setdefault(text, number_of(text))
               for text in texts]  # fmt: skip
    return np.array(numbers, np.int64), tuple(sorted(names_in(known)))


def note_of_names(file: object, names: Sequence[str]) -> tuple[str, ...]:
    """Return a note on ids that are names, or none."""
    if not names:
        return ()
    count = "1 id is a name" if len(names) == 1 else f"{len(names):,} ids are names"
    return (
        f"{file}: {count} ({named(names)}): each stands for a number of its own, the same in every "
        "list",
    )


def told_names(names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return what a report says of ids that are names, JSON-ready; nothing if there are none."""
    numbers = {name: number_of(name) for name in names}
    return {"id_names": numbers} if numbers else {}


def names_in(numbers: Mapping[str, int]) -> list[str]:
    """Return the keys that are names."""
    return [name for name, number in numbers.items() if number >= _NAMED]


def check_alike(ids: NDArray[Any] | None, num_query: int, what: str) -> None:
    """Raise InputError if all queries have names for ids and all of the gallery numbers, or so.

    These could never agree: no image would be of a query's camera. Ids below 0 are of nobody.
    """
    if ids is None:
        return
    sides = [side[side >= 0] >= _NAMED for side in (ids[:num_query], ids[num_query:])]
    if all(len(side) for side in sides):
        for one, other in (sides, sides[::-1]):
            if one.all() and not other.any():
                raise InputError(
                    f"{what} of queries and gallery never agree: of one side they are names, of "
                    "the other numbers; write them alike"
                )

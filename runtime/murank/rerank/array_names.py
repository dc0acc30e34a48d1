"""What arrays are called by toolkits of the field: features, labels and distances by any name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.checks.text import warn
from murank.datasets.known_names import SIDES, role_of

_ROWS = ("paths", "pids", "camids", "clothes")  # MATLAB has them [1,N] or [N,1]


@dataclass(frozen=True)
class NamedArrays:
    """Which arrays of a file hold what: one, or those of queries and gallery, by our name of it."""

    sources: Mapping[str, tuple[str, ...]]
    file: Path
    unused: tuple[str, ...] = ()  # of a known name, but another array holds the same

    @classmethod
    def of(cls, names: Iterable[str], file: Path) -> "NamedArrays":
        """Find them. Raises InputError: there are two of a kind, or those of one side alone."""
        found: dict[str, dict[str, list[str]]] = {}
        for name in names:
            role, side = role_of(name)
            if role:
                found.setdefault(role, {}).setdefault(side, []).append(name)
        sources = {role: _chosen(role, sides, file) for role, sides in found.items()}
        unused = [
            name
            for role, sides in found.items()
            for some in sides.values()
            for name in some
            if name not in sources[role]
        ]
        return cls(sources, file, tuple(unused))

    @property
    def wanted(self) -> list[str]:
        """The arrays, as the file calls them."""
        return [name for names in self.sources.values() for name in names]

    def joined(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return arrays by our names, queries before the gallery; a note tells what they were.

        With two sides, `num_query` is the length of the first. Raises InputError if arrays do not
        fit.
        """
        ours: dict[str, NDArray[Any]] = {}
        counts: dict[str, tuple[int, ...]] = {}  # of rows, of queries and of the gallery
        for role, names in self.sources.items():
            parts = [arrays[name] for name in names]
            if role in _ROWS:
                parts = [part.ravel() if 1 in part.shape[-2:] else part for part in parts]
            try:
                ours[role] = parts[0] if len(parts) == 1 else np.concatenate(parts)
            except (ValueError, TypeError) as error:  # TypeError: of types without a common one
                raise InputError(f"{self.file}: {' and '.join(names)} do not fit") from error
            if len(parts) == 2:
                counts[" and ".join(names)] = tuple(len(part) for part in parts)
                ours.setdefault("num_query", np.array(len(parts[0])))
        self._check_halves(counts)
        self._tell()
        return ours

    def _check_halves(self, counts: Mapping[str, tuple[int, ...]]) -> None:
        """Raise InputError unless all that is in two halves has as many rows in each."""
        (first, rows), *others = counts.items() or [("", ())]
        for names, count in others:
            if count != rows:
                raise InputError(
                    f"{self.file}: {names} have {count[0]:,} and {count[1]:,} rows, but {first} "
                    f"{rows[0]:,} and {rows[1]:,}"
                )

    def _tell(self) -> None:
        others = [
            f"{' and '.join(names)} as {role}"
            for role, names in self.sources.items()
            if names not in ((role,), (f"q_{role}", f"g_{role}"))
        ]
        if others:
            warn(f"{self.file}: took {', '.join(others)}")
        if self.unused:
            warn(f"{self.file}: arrays passed over: {', '.join(self.unused)}")


def _chosen(role: str, sides: Mapping[str, list[str]], file: Path) -> tuple[str, ...]:
    whole = sides.get("", [])
    if role in whole:
        return (role,)
    for names in sides.values():
        if len(names) > 1:
            raise InputError(f"{file}: {' and '.join(names)} may be the {role}: call one {role}")
    if whole:
        return (whole[0],)
    for side in SIDES:
        if side not in sides:
            there = next(iter(sides.values()))[0]
            raise InputError(
                f"{file} holds {there}, and no {role} of the {side} ({side[0]}_{role})"
            )
    return sides["query"][0], sides["gallery"][0]

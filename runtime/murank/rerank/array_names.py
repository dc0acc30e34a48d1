"""What arrays are called by toolkits of the field: features, labels and distances by any name."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.checks.text import warn

# Our name of what an array holds, and others', in lower case and without _ and the like.
_ROLES = {
    "features": "f fea feas feat feats feature emb embs embed embeds embedding embeddings vectors",
    "distmat": "dist dists qgdist distance distances distmatrix distancematrix",
    "paths": "path imgpath imgpaths imagepath imagepaths imgname imgnames imagename "
    "imagenames filename filenames files name names",
    "pids": "pid id ids label labels personid personids identity identities vid vids",
    "camids": "cam cams camid camera cameras cameraid cameraids camlabel camlabels",
    "clothes": "cloth clothesid clothesids clothid clothids clothing clothids",
    "num_query": "numqueries nquery nqueries",
}
_ROWS = ("paths", "pids", "camids", "clothes")  # MATLAB has them [1,N] or [N,1]
_SIDES = {"query": ("q", "query", "queries", "probe", "prob"), "gallery": ("g", "gallery", "gal")}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _known() -> dict[str, tuple[str, str]]:
    """Return role and side ("" of both) by plain name."""
    words = {role: (_plain(role), *others.split()) for role, others in _ROLES.items()}
    known = {word: (role, "") for role, some in words.items() for word in some}
    for side, names in _SIDES.items():
        for role, some in words.items():
            for name, word in itertools.product(names, some):
                known.setdefault(name + word, (role, side))
                known.setdefault(word + name, (role, side))
    return known


_KNOWN = _known()


@dataclass(frozen=True)
class NamedArrays:
    """Which arrays of a file hold what: one, or those of queries and gallery, by our name of it."""

    sources: Mapping[str, tuple[str, ...]]
    file: Path

    @classmethod
    def of(cls, names: Iterable[str], file: Path) -> "NamedArrays":
        """Find them. Raises InputError: there are two of a kind, or those of one side alone."""
        found: dict[str, dict[str, list[str]]] = {}
        for name in names:
            role, side = _KNOWN.get(_plain(name), ("", ""))
            if role:
                found.setdefault(role, {}).setdefault(side, []).append(name)
        return cls({role: _chosen(role, sides, file) for role, sides in found.items()}, file)

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
        for role, names in self.sources.items():
            parts = [arrays[name] for name in names]
            if role in _ROWS:
                parts = [part.ravel() if 1 in part.shape[-2:] else part for part in parts]
            try:
                ours[role] = parts[0] if len(parts) == 1 else np.concatenate(parts)
            except ValueError as error:
                raise InputError(f"{self.file}: {' and '.join(names)} do not fit") from error
            if len(parts) == 2:
                ours.setdefault("num_query", np.array(len(parts[0])))
        self._tell()
        return ours

    def _tell(self) -> None:
        others = [
            f"{' and '.join(names)} as {role}"
            for role, names in self.sources.items()
            if names not in ((role,), (f"q_{role}", f"g_{role}"))
        ]
        if others:
            warn(f"{self.file}: took {', '.join(others)}")


def _chosen(role: str, sides: Mapping[str, list[str]], file: Path) -> tuple[str, ...]:
    whole = sides.get("", [])
    if role in whole:
        return (role,)
    for names in sides.values():
        if len(names) > 1:
            raise InputError(f"{file}: {' and '.join(names)} may be the {role}: call one {role}")
    if whole:
        return (whole[0],)
    for side in _SIDES:
        if side not in sides:
            there = next(iter(sides.values()))[0]
            raise InputError(f"{file} holds {there}, and no {role} of the {side}")
    return sides["query"][0], sides["gallery"][0]

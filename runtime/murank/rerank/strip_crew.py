"""Neighbours by other processes: each holds two strips of rows, this one holds lists alone."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import MachineError
from murank.crew import Crew, Lost, Make
from murank.files.aside import aside, sweep, temporary_folder
from murank.files.atomic import made_folder, readable_errors
from murank.files.mapped import let_go
from murank.rerank.resume import Part

CrewOf = Callable[[Make], Crew]
"""Returns who does work that is made so; nobody is started before there is something to do."""
_CHANGES = ("indptr", "indices", "values")


@dataclass(frozen=True)
class StripPairUnit:
    """Two strips of rows, or one with itself."""

    pair: tuple[int, int]
    bounds: Any = None  # beyond which nothing is wanted

    def split(self) -> Sequence[Any]:
        """It cannot be divided."""
        return ()


@dataclass(frozen=True)
class MakeStripWork:
    """Makes what compares strips, in the process that does it."""

    folder: Path
    length: int  # places a list

    def __call__(self) -> "StripWork":
        """Map what `_write` wrote."""
        arrays = {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
            for path in self.folder.glob("*.npy")
        }
        return StripWork(arrays, self.length)


@dataclass(frozen=True)
class StripWork:
    """Compares strips of rows that are mapped."""

    arrays: Mapping[str, NDArray[Any]]
    length: int

    def begin(self, unit: StripPairUnit) -> None:
        """Nothing: the pages are read when they are needed."""

    def finish(self, unit: StripPairUnit, _begun: None) -> Any:
        """Return (first row, lists) of each strip."""
        from murank_kernels.fusion.changes import Changes
        from murank_kernels.tiles.strips import search_pair

        arrays = self.arrays
        found = search_pair(
            unit.pair, arrays["features"], arrays["norms"],
            Changes(*(arrays[name] for name in _CHANGES)), arrays["cameras"], self.length,
            unit.bounds,
        )  # fmt: skip
        let_go(arrays["features"])  # other strips come next
        return found


@dataclass(frozen=True)
class StripSearch:
    """A `Search` of the kernels; its lists are those of the exact one, to the bit."""

    crew_of: CrewOf
    part: Part | None = None  # goes on from what it holds
    beside: Path | None = None  # where workers see the same files; None: on this machine

    def __call__(self, work: Any) -> Any:
        """Give all pairs of strips away that are not known yet, and merge what comes back."""
        from murank_kernels.tiles.strips import strip_pairs

        pairs = strip_pairs(len(work.features))
        lists, done = work.lists(), np.zeros(len(pairs), bool)
        known = None if self.part is None else self.part.load()
        if known is not None and lists.take(known):
            done[:] = known["done"]
        if done.all():
            return lists
        with self._folder() as folder, readable_errors(folder):
            _write(folder, work)
            crew = self.crew_of(MakeStripWork(folder, work.length))
            try:
                self._merge(crew, pairs, lists, done, work.progress)
            finally:
                crew.close()
        return lists

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """Make a folder for what workers map, which is gone at the end."""
        if self.beside is None:
            with temporary_folder("murank-strips") as folder:
                yield folder
            return
        with readable_errors(self.beside), made_folder(self.beside.parent):
            sweep(self.beside.parent)
            with aside(self.beside, lambda path: path.mkdir(mode=0o700)) as folder:
                yield folder

    def _merge(
        self, crew: Crew, pairs: Sequence[tuple[int, int]], lists: Any, done: NDArray[np.bool_],
        progress: Any,
    ) -> None:  # fmt: skip
        from murank_kernels.tiles.strips import bounds_of

        places = {pair: place for place, pair in enumerate(pairs)}
        left = [pair for pair in pairs if not done[places[pair]]]
        units = (StripPairUnit(pair, bounds_of(pair, lists)) for pair in left)  # as lists are then
        for unit, answer in crew.answers(units):
            if isinstance(answer, Lost):
                raise MachineError(f"strips {unit.pair} of the features are lost: {answer.reason}")
            for first, found in answer:
                lists.merge(found, first)
            done[places[unit.pair]] = True
            if progress is not None:
                progress("strips", int(done.sum()), len(done))
            if self.part is not None and self.part.due():
                self.part.save({**lists.to_arrays(), "done": done})


def _write(folder: Path, work: Any) -> None:
    """Write what workers map."""
    from murank_kernels.tiles.distances import squared_norms

    changes = {name: getattr(work.changes, name) for name in _CHANGES}
    arrays = {
        "features": work.features, "norms": squared_norms(work.features),
        "cameras": work.cameras, **changes,
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)

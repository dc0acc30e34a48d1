"""Who finds the neighbours of all rows: this process, others, or an approximate index."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from murank.rerank.ivf import IvfSearch
from murank.rerank.resume import Memory, Part
from murank.rerank.strip_crew import CrewOf, StripSearch


@dataclass(frozen=True)
class Neighbours:
    """How they are found; by itself exactly, here."""

    recall: float | None = None  # of an approximate search
    crew_of: CrewOf | None = None  # other processes, which find them exactly
    beside: Path | None = None  # see `StripSearch`


EXACT = Neighbours()


@dataclass(frozen=True)
class Searches:
    """A search for each step of a re-ranking, each with a memory of its own."""

    how: Neighbours
    memory: Memory | None
    told: dict[str, Any] = field(default_factory=dict)  # of each step, JSON-ready

    def of(self, step: str) -> Any:
        """Return the `Search` of a step; None: the kernels' own."""
        if self.how.recall is not None:
            return _Ivf(self, step, self._part(f"{step}-ivf"))
        if self.how.crew_of is not None:
            part = self._part(f"{step}-strips")
            return StripSearch(self.how.crew_of, part, self.how.beside)
        part = self._part(f"{step}-neighbours")
        return None if part is None else _Resumed(part)

    def _part(self, name: str) -> Part | None:
        return None if self.memory is None else self.memory.part(name)


@dataclass(frozen=True)
class _Resumed:
    """The exact search here, which goes on where it was."""

    part: Part

    def __call__(self, work: Any) -> Any:
        from murank_kernels.tiles.search import exact_search

        return exact_search(work, checkpoint=self.part)


@dataclass(frozen=True)
class _Ivf:
    """An approximate search, kept whole, and what it told."""

    searches: Searches
    step: str
    part: Part | None

    def __call__(self, work: Any) -> Any:
        lists, known = work.lists(), None if self.part is None else self.part.load()
        if known is not None and lists.take(known):
            self.searches.told[self.step] = json.loads(str(known["told"]))
            return lists
        assert self.searches.how.recall is not None  # noqa: S101
        search = IvfSearch(self.searches.how.recall)
        lists = search(work)
        assert search.told is not None  # noqa: S101
        told = self.searches.told[self.step] = search.told.to_json()
        if self.part is not None and self.part.due():
            self.part.save({**lists.to_arrays(), "told": np.array(json.dumps(told))})
        return lists

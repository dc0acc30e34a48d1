"""What a contact sheet shows: which queries, and which candidate matches of each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank.rerank.mu import MuDistances
from murank.rerank.ranking import Ranking
from murank.rerank.verdicts import Verdicts, verdicts_of

# match: the query's person; junk: what evaluators drop by the protocol's rule (by the same camera,
# Zheng et al. 2015, Market-1501), or pid -1 where that is left out; other: somebody else.
Verdict = Literal["match", "other", "junk"]
MARKET1501: Mapping[str, Any] = {}  # the protocol where nothing else is named
N_SHOWN = 10
MAX_QUERIES = 12


@dataclass(frozen=True)
class Cell:
    """One candidate match."""

    path: str
    distance: float  # small = same person
    mu: float | None  # p("different person"), where a scorer looked at the pair
    verdict: Verdict | None  # None without labels


@dataclass(frozen=True)
class SheetRow:
    """One query and the first of its candidate matches, best first."""

    query: str  # path
    before: tuple[Cell, ...]  # as the encoder orders them
    after: tuple[Cell, ...]  # re-ranked

    @property
    def has_labels(self) -> bool:
        """Whether right and wrong are known."""
        return any(cell.verdict is not None for cell in (*self.before, *self.after))


def counted_ranks(cells: Sequence[Cell]) -> list[int | None]:
    """Return the rank of each cell from 1 on; None for junk, which is not counted."""
    ranks: list[int | None] = []
    rank = 0
    for cell in cells:
        counts = cell.verdict != "junk"
        rank += counts
        ranks.append(rank if counts else None)
    return ranks


def first_match(cells: Sequence[Cell]) -> int | None:
    """Return the rank of the first right match, None if there is none."""
    ranks = zip(cells, counted_ranks(cells), strict=True)
    return next((rank for cell, rank in ranks if cell.verdict == "match"), None)


def change_of(row: SheetRow) -> str:
    """Say where the first right match was and is; nothing without labels."""
    if not row.has_labels:
        return ""
    ranks = first_match(row.before), first_match(row.after)
    old, new = (f"rank {rank}" if rank else "not shown" for rank in ranks)
    return f"first right match: {old} before, {new} after"


def choose_queries(
    before: Ranking,
    after: Ranking,
    *,
    max_queries: int = MAX_QUERIES,
    n_shown: int = N_SHOWN,
    protocol: Mapping[str, Any] = MARKET1501,
) -> list[int]:
    """Return the queries worth a look.

    With labels: those whose first right match among the `n_shown` first changed its rank, the
    largest gain, the largest loss, the second gain and so on, so that neither side is hidden;
    then the others in order. Without labels: the first ones. Ties: lower index first.
    `protocol` are keyword arguments of RankEvaluator.
    """
    everyone = range(len(after.indices))
    verdicts = verdicts_of(after.labels, protocol)
    if verdicts is None:
        return list(everyone)[:max_queries]
    old, new = (_first_match_ranks(one, n_shown, verdicts) for one in (before, after))
    gain = old - new
    gains = sorted((q for q in everyone if gain[q] > 0), key=lambda q: -gain[q])
    losses = sorted((q for q in everyone if gain[q] < 0), key=lambda q: gain[q])
    unchanged = (q for q in everyone if gain[q] == 0)
    return list(islice(chain(_interleave(gains, losses), unchanged), max_queries))


def count_changes(
    before: Ranking, after: Ranking, *, protocol: Mapping[str, Any] = MARKET1501
) -> list[str]:
    """Return sentences with the counts: queries, gallery images and, with labels, the changes."""
    num_query, top_k = after.indices.shape
    counts = [f"{num_query:,} queries, {len(after.gallery_paths):,} gallery images."]
    verdicts = verdicts_of(after.labels, protocol)
    if verdicts is None:
        return counts
    top_k = min(top_k, before.indices.shape[1])
    old, new = (_first_match_ranks(one, top_k, verdicts) for one in (before, after))
    nowhere = (old > top_k) & (new > top_k)
    moved = (old > new, old < new, (old == new) & ~nowhere)
    up, down, same = (int(part.sum()) for part in moved)
    return [
        *counts,
        f"Over all queries the first right match moved up for {up:,}, down for {down:,} and kept "
        f"its rank for {same:,}; {int(nowhere.sum()):,} have none within the first {top_k}.",
    ]


def rows_of(
    before: Ranking,
    after: Ranking,
    mu: MuDistances | None,
    queries: Iterable[int],
    *,
    n_shown: int = N_SHOWN,
    protocol: Mapping[str, Any] = MARKET1501,
) -> list[SheetRow]:
    """Return what the sheet shows of some queries; `before` and `after` rank the same images."""
    verdicts = verdicts_of(after.labels, protocol)
    return [
        SheetRow(
            str(after.query_paths[query]),
            _cells(before, mu, query, n_shown, verdicts),
            _cells(after, mu, query, n_shown, verdicts),
        )
        for query in queries
    ]


def _cells(
    ranking: Ranking, mu: MuDistances | None, query: int, n_shown: int, verdicts: Verdicts | None
) -> tuple[Cell, ...]:
    images = ranking.indices[query, :n_shown]
    distances = ranking.distances[query, :n_shown].tolist()
    known: dict[int, float] = {}
    if mu is not None:
        known = dict(zip(mu.candidates[query].tolist(), mu.mu[query].tolist(), strict=True))
    return tuple(
        Cell(str(ranking.gallery_paths[image]), distance, known.get(image), verdict)
        for image, distance, verdict in zip(
            images.tolist(), distances, _verdicts(query, images, verdicts), strict=True
        )
    )


def _verdicts(
    query: int, images: NDArray[np.int64], verdicts: Verdicts | None
) -> Sequence[Verdict | None]:
    if verdicts is None:
        return [None] * len(images)
    pairs = np.full(len(images), query), images
    found = zip(verdicts.same_person(*pairs), verdicts.dropped(*pairs), strict=True)
    return ["junk" if dropped else "match" if same else "other" for same, dropped in found]


def _first_match_ranks(ranking: Ranking, depth: int, verdicts: Verdicts) -> NDArray[np.int64]:
    """Rank of each query's first right match, junk not counted; depth + 1 where there is none."""
    same_person, dropped = verdicts.listed(ranking.indices[:, :depth])
    match = same_person & ~dropped
    rank = np.cumsum(~dropped, axis=1)
    first = match.argmax(axis=1)[:, None]
    has_match = np.take_along_axis(match, first, axis=1)[:, 0]
    return np.where(has_match, np.take_along_axis(rank, first, axis=1)[:, 0], depth + 1)


def _interleave(one: Sequence[int], other: Sequence[int]) -> Iterator[int]:
    for pair in zip_longest(one, other):
        yield from (query for query in pair if query is not None)

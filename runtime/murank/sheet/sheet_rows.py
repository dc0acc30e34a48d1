"""What a contact sheet shows: which queries, and which candidate matches of each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from murank.datasets.labels import JUNK_PID
from murank.rerank.mu import MuDistances
from murank.rerank.ranking import Ranking

# match: the query's person by another camera; junk: by the same camera, which evaluators leave out
# (Zheng et al. 2015, Market-1501), or pid -1 where that is dropped; other: somebody else.
Verdict = Literal["match", "other", "junk"]
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
    drop_junk: bool = False,
) -> list[int]:
    """Return the queries worth a look.

    With labels: those whose first right match among the `n_shown` first changed its rank, the
    largest gain, the largest loss, the second gain and so on, so that neither side is hidden;
    then the others in order. Without labels: the first ones. Ties: lower index first. With
    `drop_junk`, images of pid -1 do not count.
    """
    everyone = range(len(after.indices))
    if after.labels is None or before.labels is None:
        return list(everyone)[:max_queries]
    old, new = (_first_match_ranks(one, n_shown, drop_junk=drop_junk) for one in (before, after))
    gain = old - new
    gains = sorted((q for q in everyone if gain[q] > 0), key=lambda q: -gain[q])
    losses = sorted((q for q in everyone if gain[q] < 0), key=lambda q: gain[q])
    unchanged = (q for q in everyone if gain[q] == 0)
    return list(islice(chain(_interleave(gains, losses), unchanged), max_queries))


def count_changes(before: Ranking, after: Ranking, *, drop_junk: bool = False) -> list[str]:
    """Return sentences with the counts: queries, gallery images and, with labels, the changes."""
    num_query, top_k = after.indices.shape
    counts = [f"{num_query:,} queries, {len(after.gallery_paths):,} gallery images."]
    if after.labels is None or before.labels is None:
        return counts
    top_k = min(top_k, before.indices.shape[1])
    old, new = (_first_match_ranks(one, top_k, drop_junk=drop_junk) for one in (before, after))
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
    drop_junk: bool = False,
) -> list[SheetRow]:
    """Return what the sheet shows of some queries; `before` and `after` rank the same images."""
    return [
        SheetRow(
            str(after.query_paths[query]),
            _cells(before, mu, query, n_shown, drop_junk=drop_junk),
            _cells(after, mu, query, n_shown, drop_junk=drop_junk),
        )
        for query in queries
    ]


def _cells(
    ranking: Ranking, mu: MuDistances | None, query: int, n_shown: int, *, drop_junk: bool
) -> tuple[Cell, ...]:
    images = ranking.indices[query, :n_shown].tolist()
    distances = ranking.distances[query, :n_shown].tolist()
    known: dict[int, float] = {}
    if mu is not None:
        known = dict(zip(mu.candidates[query].tolist(), mu.mu[query].tolist(), strict=True))
    return tuple(
        Cell(
            str(ranking.gallery_paths[image]),
            distance,
            known.get(image),
            _verdict(ranking, query, image, drop_junk=drop_junk),
        )
        for image, distance in zip(images, distances, strict=True)
    )


def _verdict(ranking: Ranking, query: int, image: int, *, drop_junk: bool) -> Verdict | None:
    labels = ranking.labels
    if labels is None:
        return None
    if drop_junk and labels.g_pids[image] == JUNK_PID:
        return "junk"
    if labels.g_pids[image] != labels.q_pids[query]:
        return "other"
    return "junk" if labels.g_camids[image] == labels.q_camids[query] else "match"


def _first_match_ranks(ranking: Ranking, depth: int, *, drop_junk: bool) -> NDArray[np.int64]:
    """Rank of each query's first right match, junk not counted; depth + 1 where there is none."""
    labels = ranking.labels
    assert labels is not None  # noqa: S101 - the callers looked
    images = ranking.indices[:, :depth]
    same_person = labels.g_pids[images] == labels.q_pids[:, None]
    same_camera = labels.g_camids[images] == labels.q_camids[:, None]
    left_out = same_person & same_camera
    if drop_junk:
        left_out |= labels.g_pids[images] == JUNK_PID
    match = same_person & ~left_out
    rank = np.cumsum(~left_out, axis=1)
    first = match.argmax(axis=1)[:, None]
    has_match = np.take_along_axis(match, first, axis=1)[:, 0]
    return np.where(has_match, np.take_along_axis(rank, first, axis=1)[:, 0], depth + 1)


def _interleave(one: Sequence[int], other: Sequence[int]) -> Iterator[int]:
    for pair in zip_longest(one, other):
        yield from (query for query in pair if query is not None)

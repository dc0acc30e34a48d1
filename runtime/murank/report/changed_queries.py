"""Pictures of what changed most: a query, and its candidate matches before and after."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from murank.images import DEFAULT_LIMITS, DecodeLimits
from murank.report.markup import Markup, element, joined
from murank.rerank.mu import MuDistances
from murank.rerank.ranking import Ranking
from murank.rerank.verdicts import verdicts_of
from murank.sheet import (
    CROP,
    QUERY,
    Cell,
    Crops,
    SheetRow,
    change_of,
    choose_queries,
    counted_ranks,
    first_match,
    rows_of,
)

MOST = 24  # queries
_SHOWN = 10  # candidates
_QUALITY = 80  # of JPEG
_WORDS = {"match": "right", "other": "wrong", "junk": "not counted", None: ""}


def changed_rows(
    before: Ranking, after: Ranking, mu: MuDistances | None, *, protocol: Mapping[str, Any]
) -> list[SheetRow]:
    """Return the queries that changed most, and their candidates, before and after.

    With labels: those whose first right match moved, gains and losses in turn. Without: those with
    the most new candidates among the first ten, and then with the most in another place.
    """
    has_labels = verdicts_of(after.labels, protocol) is not None
    if not has_labels:
        queries = _most_new(before, after)
    else:
        queries = choose_queries(before, after, max_queries=MOST, protocol=protocol)
    rows = rows_of(before, after, mu, queries, n_shown=_SHOWN, protocol=protocol)
    if not has_labels:
        return rows
    return [row for row in rows if first_match(row.before) != first_match(row.after)]


class Pictures:
    """Draws rows as articles; each image is decoded once a size."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        bits: int | None = None,
        limits: DecodeLimits = DEFAULT_LIMITS,
    ) -> None:
        """`root`: where paths start; `bits`, `limits`: as of `load_image`."""
        self._crops = Crops(Path(root), bits, limits)

    def article(self, number: int, row: SheetRow, *, before: str, after: str) -> Markup:
        """Return one query with its candidates; `before` and `after` name the two rankings."""
        text = change_of(row) or _without_labels(row)
        query = element(
            "figure", self._image(row.query, QUERY, "the query"), element("figcaption", "query"),
            class_="query",
        )  # fmt: skip
        lines = [
            element("div", element("h4", name), element("ol", *map(self._cell, *_ranked(cells))))
            for name, cells in ((before, row.before), (after, row.after))
        ]
        return Markup(
            element(
                "article", element("h3", f"{number}. {row.query}"), element("p", text),
                element("div", query, element("div", *lines, class_="lines"), class_="change"),
            )
            + "\n"
        )  # fmt: skip

    def _cell(self, cell: Cell, rank: int | None) -> Markup:
        word = _WORDS[cell.verdict]
        place = "-" if rank is None else str(rank)
        parts = [element("b", place), f" {word} ", element("span", f"{cell.distance:.3f}")]
        if cell.mu is not None:
            parts.append(element("span", f"mu {cell.mu:.2f}"))
        alt = f"candidate match, rank {place}{', ' * bool(word)}{word}: {cell.path}"
        image = self._image(cell.path, CROP, alt)
        figure = element("figure", image, element("figcaption", *parts))
        return element("li", figure, class_=cell.verdict or "unknown")

    def _image(self, path: str, size: tuple[int, int], alt: str) -> Markup:
        raw = io.BytesIO()
        self._crops.get(path, size).save(raw, "JPEG", quality=_QUALITY)
        data = base64.b64encode(raw.getvalue()).decode()
        source = Markup(f"data:image/jpeg;base64,{data}")  # plain() would cut so long a word
        attributes = {"src": source, "alt": alt, "width": size[0], "height": size[1]}
        return Markup(element("img", **attributes).removesuffix("</img>"))


def _ranked(cells: Sequence[Cell]) -> tuple[Sequence[Cell], list[int | None]]:
    return cells, counted_ranks(cells)


def _most_new(before: Ranking, after: Ranking) -> list[int]:
    """Return the queries with the most new candidates among the first, then other places."""
    old, new = before.indices[:, :_SHOWN], after.indices[:, :_SHOWN]
    count = (~(new[:, :, None] == old[:, None, :]).any(axis=2)).sum(axis=1)
    moved = (new != old).sum(axis=1)
    order = np.lexsort((-moved, -count))[:MOST]
    return [int(query) for query in order if moved[query]]


def _without_labels(row: SheetRow) -> str:
    old, new = ([cell.path for cell in cells] for cells in (row.before, row.after))
    count = len(set(new) - set(old))
    moved = sum(one != other for one, other in zip(old, new, strict=True))
    return f"of the first {len(new)}, {count} are new, and {moved} places have another image"


def shown(rows: Sequence[SheetRow], pictures: Pictures, *, before: str, after: str) -> Markup:
    """Return all of them."""
    numbered = enumerate(rows, 1)
    return joined(pictures.article(i, row, before=before, after=after) for i, row in numbered)

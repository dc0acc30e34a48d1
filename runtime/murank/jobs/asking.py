"""What the engine says about pairs, and which of them it can say nothing about."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, MachineError
from murank.images import ReadyImage
from murank.images.ahead import Unreadable
from murank.jobs.asked_pairs import Pairs

if TYPE_CHECKING:
    from murank.engine.engine import Engine
    from murank.engine.pair_orders import Order

_Rows = Mapping[int, Sequence[int]]  # query -> columns of its candidates, as many for each


class Skip(NamedTuple):
    """An image that takes part in pairs without an answer."""

    path: str
    reason: str  # of the first of them
    pairs: int


@dataclass(frozen=True)
class PairAnswers:
    """Mu of the pairs of some queries."""

    mu: NDArray[np.float32]  # [q,K]; neutral where there is no answer
    answered: NDArray[np.bool_]  # [q,K]
    skips: list[Skip]


def once_each(skips: Iterable[Skip], count: Callable[[int, int], int]) -> list[Skip]:
    """Name each image once; `count` makes one number of two."""
    skips_by_path: dict[str, Skip] = {}
    for skip in skips:
        known = skips_by_path.get(skip.path)
        skips_by_path[skip.path] = (
            known._replace(pairs=count(known.pairs, skip.pairs)) if known else skip
        )
    return list(skips_by_path.values())


def ask(
    engine: "Engine",
    pairs: Pairs,
    queries: range,
    images: Mapping[Path, ReadyImage | Unreadable],
    order: "Order",
) -> PairAnswers:
    """Ask for mu of all pairs of these queries."""
    usable = {path: image for path, image in images.items() if isinstance(image, ReadyImage)}

    def score(rows: _Rows) -> NDArray[np.float32]:
        asked = [usable[pairs.query_paths[query]] for query in rows]
        candidates = [
            [usable[pairs.candidate_paths(query)[column]] for column in columns]
            for query, columns in rows.items()
        ]
        try:
            return engine.mu_many(asked, candidates, order=order)
        except MachineError as error:
            names = ", ".join(str(pairs.query_paths[query]) for query in rows)
            raise MachineError(f"while asking about {names}: {error}") from error

    mu = pairs.neutral_mu(queries)
    answered = np.zeros(mu.shape, bool)
    skips = list(_unreadable(pairs, queries, images))
    for rows in _askable(pairs, queries, usable):
        for query, column, answer in _answers(score, rows):
            if isinstance(answer, InputError):
                path, other = pairs.query_paths[query], pairs.candidate_paths(query)[column]
                skips.append(Skip(str(path), _reason(path, other, answer), 1))
            else:
                mu[query - queries.start, column] = answer
                answered[query - queries.start, column] = True
    return PairAnswers(mu, answered, skips)


def _unreadable(
    pairs: Pairs, queries: range, images: Mapping[Path, ReadyImage | Unreadable]
) -> Iterator[Skip]:
    for query in queries:
        path, candidates = pairs.query_paths[query], pairs.candidate_paths(query)
        counts = [(path, len(candidates)), *((other, 1) for other in candidates if other != path)]
        for name, count in counts:
            image = images[name]
            if isinstance(image, Unreadable):
                yield Skip(str(name), image.reason, count)


def _askable(pairs: Pairs, queries: range, usable: Mapping[Path, ReadyImage]) -> list[_Rows]:
    """Return the pairs of usable images; what the engine is asked at once has rows of one length.

    Without an unusable image that is all of them at once.
    """
    askable: dict[int, dict[int, list[int]]] = {}
    for query in queries:
        if pairs.query_paths[query] in usable:
            candidates = enumerate(pairs.candidate_paths(query))
            columns = [column for column, path in candidates if path in usable]
            if columns:
                askable.setdefault(len(columns), {})[query] = columns
    return list(askable.values())


def _answers(
    score: Callable[[_Rows], NDArray[np.float32]], rows: _Rows
) -> Iterator[tuple[int, int, float | InputError]]:
    """Yield query, column, and mu or why there is none: a bad pair takes no other with it."""
    try:
        mu = score(rows)
    except InputError as error:
        reason, smaller = error.with_traceback(None), _smaller(rows)
    else:
        for (query, columns), values in zip(rows.items(), mu.tolist(), strict=True):
            for column, value in zip(columns, values, strict=True):
                yield query, column, value
        return
    if not smaller:
        ((query, (column,)),) = rows.items()
        yield query, column, reason
    for one in smaller:
        yield from _answers(score, one)


def _reason(path: Path, other: Path, error: InputError) -> str:
    from murank.engine.no_answer import NoAnswerError

    if isinstance(error, NoAnswerError):
        return str(error.called(path, other))
    return f"{path} and {other}: {error}"


def _smaller(rows: _Rows) -> list[_Rows]:
    """Split several queries into one each, a query into its pairs, a pair no further."""
    if len(rows) > 1:
        return [{query: columns} for query, columns in rows.items()]
    ((query, columns),) = rows.items()
    return [{query: [column]} for column in columns] if len(columns) > 1 else []

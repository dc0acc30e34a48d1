"""What an engine answers to labelled pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.engine import Engine
from murank.engine.no_answer import first_no_number, no_answer
from murank.engine.scorer import Scorer
from murank.images import ReadyImage
from murank.images.ahead import Unreadable, ready_ahead
from murank.pairs.labelled import Pair
from murank.rerank.methods import Progress

_CANDIDATES = 64  # of one query in work at once: bounds the images in memory

_Work = tuple[str, list[Pair]]  # a query and pairs of it


@dataclass(frozen=True)
class Skipped:
    """An image that cannot be used."""

    path: str
    reason: str  # names it
    pairs: int  # that it takes part in


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Pairs that were answered, each once."""

    pairs: tuple[Pair, ...]  # [n]
    log_odds: NDArray[np.float64]  # [n] log(p(No) / p(Yes)) at temperature 1, small = same person
    skipped: tuple[Skipped, ...]

    @property
    def same(self) -> NDArray[np.bool_]:
        """Labels [n]."""
        return np.array([pair.match for pair in self.pairs], bool)


def distinct_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Return each pair once, in the order given; InputError if two labels contradict each other."""
    distinct: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        if distinct.setdefault((pair.query, pair.candidate), pair) != pair:
            raise InputError(
                f"the pair {pair.query}, {pair.candidate} is labelled both Yes and No; remove one"
            )
    return list(distinct.values())


def score_pairs(
    engine: Engine,
    pairs: Sequence[Pair],
    *,
    root: Path | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> ScoredPairs:
    """Ask the engine about pairs; those of one query share its prefix.

    Parameters
    ----------
    engine
        With its scorer loaded.
    pairs
        Labelled; one that is there twice is asked and counted once.
    root
        Where relative paths start; None: the current folder.
    strict
        Stop at an image that cannot be used, instead of leaving out its pairs.
    progress
        Called with a stage, and with the pairs done and in all.

    Raises
    ------
    InputError
        The engine has no scorer, no pair can be scored, an answer is no number; with `strict`, an
        image cannot be used.
    """
    if engine.scorer is None:
        raise InputError("this engine has no MLLM loaded: run murank export with --mllm")
    wanted = distinct_pairs(pairs)
    work = list(_work(wanted))
    where = Path() if root is None else root
    batches = [[where / query, *(where / one.candidate for one in some)] for query, some in work]
    odds: dict[Pair, float] = {}
    skipped: dict[str, Skipped] = {}
    done = 0
    for (query, some), images in zip(
        work, ready_ahead(batches, engine.scorer.part.preprocessing), strict=True
    ):
        names = [query, *(pair.candidate for pair in some)]
        _skip(skipped, names, images, strict=strict)
        odds |= _answers(engine.scorer, some, images)
        done += len(some)
        if progress is not None:
            progress("pairs", done, len(wanted))
    if not odds:
        first = f"; the first: {next(iter(skipped.values())).reason}" if skipped else ""
        raise InputError(f"not one pair can be scored{first}")
    return ScoredPairs(tuple(odds), np.array(list(odds.values())), tuple(skipped.values()))


def _work(pairs: Sequence[Pair]) -> Iterator[_Work]:
    """Yield the pairs by query, so many at once."""
    by_query: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_query.setdefault(pair.query, []).append(pair)
    for query, some in by_query.items():
        for start in range(0, len(some), _CANDIDATES):
            yield query, some[start : start + _CANDIDATES]


def _skip(
    skipped: dict[str, Skipped],
    names: Sequence[str],
    images: Sequence[ReadyImage | Unreadable],
    *,
    strict: bool,
) -> None:
    """Note the images that cannot be used: the query first, then its candidates."""
    for place, (name, image) in enumerate(zip(names, images, strict=True)):
        if not isinstance(image, Unreadable):
            continue
        if strict:
            raise InputError(f"{image.reason} (--strict)")
        if place > 0 and name == names[0]:
            continue  # a query that is its own candidate: counted with all of its pairs
        known = skipped.get(name, Skipped(name, image.reason, 0))
        pairs = 1 if place else len(names) - 1
        skipped[name] = Skipped(name, known.reason, known.pairs + pairs)


def _answers(
    scorer: Scorer, pairs: Sequence[Pair], images: Sequence[ReadyImage | Unreadable]
) -> dict[Pair, float]:
    query, *candidates = images
    usable = [
        (pair, image.pixels)
        for pair, image in zip(pairs, candidates, strict=True)
        if isinstance(image, ReadyImage)
    ]
    if not isinstance(query, ReadyImage) or not usable:
        return {}
    logits = scorer.logits(query.pixels, [pixels for _, pixels in usable]).astype(np.float64)
    bad = first_no_number(logits)
    if bad is not None:
        pair, pixels = usable[bad[0]]
        asked, seen = scorer.vision.of([query.pixels, pixels])
        raise no_answer(scorer, (pair.query, asked), (pair.candidate, seen))
    odds = logits[:, 0] - logits[:, 1]
    return {pair: float(value) for (pair, _), value in zip(usable, odds, strict=True)}

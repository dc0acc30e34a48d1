"""Answers that are no numbers: of which images, by which graph."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.backends.device_rows import on_host
from murank.engine.scorer import Scorer

Named = tuple[str, Any]  # what messages call an image, and its vision tokens


class NoAnswerError(InputError):
    """A graph gives NaN or infinity: for the query (0), the candidate (1), or the pair (None)."""

    def __init__(
        self, graph: Path, query: object, candidate: object, place: Literal[0, 1] | None
    ) -> None:
        if place is None:
            text = f"{query} and {candidate}: the answer of {graph} is no number"
        else:
            image = (query, candidate)[place]
            text = f"{image}: the vision tokens that {graph} makes of it are no numbers"
        super().__init__(f"{text}; leave the image out, or run murank export with --dtype fp32")
        self._graph, self._place = graph, place

    def called(self, query: object, candidate: object) -> "NoAnswerError":
        """Return the error with other names of the two images."""
        return NoAnswerError(self._graph, query, candidate, self._place)


def first_no_number(logits: NDArray[np.floating[Any]]) -> tuple[int, ...] | None:
    """Return the place [...] of the first of logits [...,2] with NaN or infinity; None: none has.

    What is none in vision tokens or in K/V is none in the answers that depend on them, and these
    are few: so nothing else is looked at until one shows.
    """
    bad = ~np.isfinite(logits).all(axis=-1)
    return tuple(np.argwhere(bad)[0].tolist()) if bad.any() else None


def no_answer(scorer: Scorer, query: Named, candidate: Named) -> NoAnswerError:
    """Find where NaN or infinity comes from, given the two images of a pair."""
    names = query[0], candidate[0]
    if not np.isfinite(on_host(query[1])).all():
        return NoAnswerError(scorer.vision.file, *names, 0)
    if not np.isfinite(on_host(candidate[1])).all():
        return NoAnswerError(scorer.vision.file, *names, 1)
    return NoAnswerError(scorer.decoder.file, *names, None)

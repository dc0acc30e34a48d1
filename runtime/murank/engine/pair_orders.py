"""The order of two images in the prompt, and mu of a query's candidates in it."""

from collections.abc import Sequence
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.deadline import Deadline, ImageTokens, Pace, score_in_time
from murank.engine.memory_cache import KeptImage, ShownImage
from murank.engine.no_answer import first_no_number, no_answer
from murank.engine.scorer import Pixels, Scorer
from murank.engine.steps import Steps, at_once, steps_of
from murank.engine.stopwatch import StageWatch
from murank.images import ImageSource, Preprocessing, prepare
from murank.images.arguments import called, check_choice, check_images, ready_images

Order = Literal["given", "swapped", "both"]
ORDERS: tuple[Order, ...] = get_args(Order)


def pixels_of(images: Sequence[ImageSource], how: Preprocessing, name: str) -> list[Pixels]:
    """Decode and resize a list of images: [3,H,W] each."""
    return [image.pixels for image in ready_images(images, how, name)]


def mu_in_order(
    scorer: Scorer,
    queries: Sequence[ImageSource | KeptImage],
    candidates: Sequence[Sequence[ImageSource | KeptImage]],
    order: Order,
) -> NDArray[np.float64]:
    """Mu [Q,K] of K candidates a query; see `Engine.mu`.

    Raises NotKeptError if the vision tokens of a KeptImage are kept no more.
    """
    check_choice(order, "order", ORDERS)
    check_images(queries, "queries")
    check_images(candidates, "candidates")
    for row in candidates:
        check_images(row, "candidates")
    if len(queries) != len(candidates) or len({len(row) for row in candidates}) > 1:
        raise InputError("candidates must be one list a query, all of one length")
    how = scorer.part.preprocessing
    if not queries:
        return np.empty((0, 0), np.float64)
    asked = _shown(queries, how, "queries")
    rows = [_shown(row, how, "candidates") for row in candidates]
    answers = []
    if order != "swapped":
        answers.append(scorer.logits_of_many(asked, rows))
    if order != "given":
        pairs = zip(asked, rows, strict=True)
        answers.append(np.stack([scorer.swapped_logits(q, row) for q, row in pairs]))
    for logits in answers:
        bad = first_no_number(logits)
        if bad is not None:
            q, k = bad
            query = called(queries[q], f"queries[{q}]")
            candidate = called(candidates[q][k], f"candidates[{q}][{k}]")
            seen = scorer.vision.of([asked[q], rows[q][k]])
            raise no_answer(scorer, (query, seen[0]), (candidate, seen[1]))
    mu = np.stack([scorer.mu(logits) for logits in answers])
    return cast("NDArray[np.float64]", mu.mean(axis=0))


def _shown(
    images: Sequence[ImageSource | KeptImage], how: Preprocessing, name: str
) -> list[ShownImage]:
    """Decode and resize those that need it."""
    if not any(isinstance(image, KeptImage) for image in images):
        return [*ready_images(cast("Sequence[ImageSource]", images), how, name)]
    return [image if isinstance(image, KeptImage) else prepare(image, how) for image in images]


@at_once
def mu_in_time(
    scorer: Scorer,
    query: ImageSource,
    candidates: Sequence[ImageSource],
    order: Order,
    pace: Pace,
    end: float,
) -> Steps[NDArray[np.float64]]:
    """Mu [n] of the first n candidates, as many as there is time for until `end`."""
    check_choice(order, "order", ORDERS)
    if order != "given":
        raise InputError(
            f"a deadline needs order='given', not {order!r}: swapped, each candidate has a prefix "
            "of its own, which no deadline worth having leaves time for"
        )
    check_images(candidates, "candidates")
    (pixels,) = pixels_of([query], scorer.part.preprocessing, "query")
    tokens, places = ImageTokens(scorer, candidates), range(len(candidates))
    deadline, name = Deadline(pace, end), called(query, "query")
    answers = yield from steps_of(
        score_in_time, scorer, pixels, tokens, places, deadline, StageWatch(), name=name
    )
    return answers.mu

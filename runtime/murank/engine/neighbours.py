"""Whether a graph answers for each image by itself, whatever else is in its batch.

Shapes say nothing of that: a mean over the batch, a normalisation left in training mode or dropout
left on give rows of the right length. Images are run together, alone, in another order and number,
and their rows compared.

What may differ is rounding: with another batch, sums are added up in another order. A row of length
1 then moves by about the roundings between pixels and feature, as a random walk: some hundred
layers, each a sum of up to 2**14 terms, round by 2**-24 * 2**7 in float32, 20 times that in all. Of
float16, each result is rounded by 2**-11 and sums are kept wider: 20 times that.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from murank.engine.encoder import Encoder
from murank.engine.scorer import Pixels, Scorer

ROWS_FLOAT32, ROWS_FLOAT16 = 20 * 2.0**-17, 20 * 2.0**-11  # distance of two rows of length 1
_UNIT = 1e-3  # a row's length is 1 but for rounding, of float16 on a GPU at most
_FEW = 3  # images of the scorer


def encoder_fault(
    encoder: Encoder, images: NDArray[np.uint8], tolerance: float = ROWS_FLOAT16
) -> str | None:
    """Return what is wrong with the features of drawn images [n,3,H,W], different ones; or None.

    Parameters
    ----------
    encoder
        To be asked.
    images
        Two at least.
    tolerance
        Largest distance of two features that count as one: ROWS_FLOAT32, or what float16 needs.
    """
    together = encoder.features(images)
    if not np.abs(np.linalg.norm(together, axis=1) - 1).max() <= _UNIT:
        return "gives features whose length is not 1, such as zeros: they have no direction"
    if together.shape[1] < 2:
        return "gives one number an image, which is no feature"
    if _apart(together, together[:1]) <= tolerance:
        return "gives the same feature whatever is on the image"
    if not _apart(encoder.features(images), together) <= tolerance:
        return "gives another feature each time it is asked (dropout left on?); export it for use"
    alone = np.concatenate([encoder.features(image[None]) for image in images])
    turned = encoder.features(images[::-1])[::-1]
    more = encoder.features(np.concatenate([images[-1:], images, images[:1]]))[1:-1]
    apart = max(_apart(rows, together) for rows in (alone, turned, more))
    if not apart <= tolerance:  # NaN is in no tolerance
        return (
            f"gives an image another feature, {apart:.1e} apart, when other images are in its "
            "batch (normalisation left in training mode?); export it so that rows are independent"
        )
    return None


def scorer_fault(
    scorer: Scorer, query: Pixels, candidates: Sequence[Pixels], tolerance: float
) -> str | None:
    """Return what is wrong with answers, asked alone, together, in another order; or None.

    Parameters
    ----------
    scorer
        Without a cache of vision tokens.
    query, candidates
        Images [3,H,W].
    tolerance
        Largest difference of the log-odds, relative to themselves where above 1, and of the vision
        tokens of an image, relative to their length: of one engine's answers on two machines, as
        both are rounding alone.
    """
    images = [*candidates[: _FEW - 1], query]
    tokens = _vision(scorer, images)
    alone = np.concatenate([_vision(scorer, [image]) for image in images])
    turned = _vision(scorer, images[::-1])[::-1]
    lengths = np.linalg.norm(tokens, axis=1)
    apart = max(np.max(_distances(rows, tokens) / lengths) for rows in (alone, turned))
    if not apart <= tolerance:
        return (
            f"gives an image other vision tokens, {apart:.1e} apart, when other images are in its "
            "batch"
        )
    together = scorer.logits(query, images)
    if not np.isfinite(together).all():
        return None  # what export measured was finite: that tells
    two = scorer.logits_of_many([images[0], query], [images[1::-1], images[:2]])[1]
    others = [
        np.concatenate([scorer.logits(query, [image]) for image in images]),
        scorer.logits(query, images[::-1])[::-1],
        scorer.logits(query, [*images, images[0]])[: len(images)],
        np.concatenate([two, together[2:]]),  # several queries
    ]
    wanted = scorer.log_odds(together)
    scale = np.maximum(1, np.abs(wanted))
    apart = max(np.max(np.abs(scorer.log_odds(one) - wanted) / scale) for one in others)
    if not apart <= tolerance:
        return f"answers otherwise, by {apart:.1e} of log-odds, when other pairs are in its batch"
    return None


def _vision(scorer: Scorer, images: Sequence[Pixels]) -> NDArray[np.float32]:
    """Vision tokens of each image in one run, a row [levels*T*H] each."""
    session = scorer.vision.session
    (tokens,) = session.run({"images": np.stack(images)}, ["tokens"])
    rows: NDArray[np.float32] = tokens.numpy().astype(np.float32).reshape(len(images), -1)
    return rows


def _apart(rows: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    return float(_distances(rows, others).max())


def _distances(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    distances: NDArray[np.float32] = np.linalg.norm(rows - others, axis=1)
    return distances

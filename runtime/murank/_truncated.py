"""Evaluation of a ranking that shows only the k best of each query."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank._ranking import Ranking


@dataclass(frozen=True)
class TruncatedEvaluation:
    """What k candidates of a query tell, by the Market-1501 rule."""

    cmc: NDArray[np.float64]  # [r] exact; ends where a list without a match ends
    mAP: float  # noqa: N815 - the field's name; a lower bound unless complete
    num_valid: int  # queries with a match somewhere in the gallery
    k: int  # length of each list
    complete: bool  # k is the whole gallery


def evaluate_truncated(ranking: Ranking, max_rank: int = 50) -> TruncatedEvaluation:
    """Evaluate a ranking of the k best (Market-1501 rule, matches beyond k count as missed).

    Raises
    ------
    InputError
        The ranking has no labels, or no query has a match.
    """
    labels = ranking.labels
    if labels is None:
        raise InputError("the ranking has no pids and camids to evaluate it by")
    matches = labels.num_matches()
    valid = matches > 0
    if not valid.any():
        raise InputError("no query has a gallery image of its pid from another camera")
    same_pid = labels.g_pids[ranking.indices] == labels.q_pids[:, None]
    same_camera = labels.g_camids[ranking.indices] == labels.q_camids[:, None]
    kept = ~(same_pid & same_camera)[valid]
    hits = same_pid[valid] & kept
    place = np.cumsum(kept, axis=1)  # rank of each kept candidate once the others are dropped
    precisions = np.where(hits, np.cumsum(hits, axis=1) / np.maximum(place, 1), 0)
    complete = ranking.indices.shape[1] == len(ranking.gallery_paths)
    return TruncatedEvaluation(
        cmc=_cmc(hits, place, len(ranking.gallery_paths) if complete else None, max_rank),
        mAP=float((precisions.sum(axis=1) / matches[valid]).mean()),
        num_valid=int(valid.sum()),
        k=ranking.indices.shape[1],
        complete=complete,
    )


def _cmc(
    hits: NDArray[np.bool_], place: NDArray[np.int64], num_gallery: int | None, max_rank: int
) -> NDArray[np.float64]:
    """Return the curve up to the shortest list that shows no match: beyond it nothing is known."""
    found = hits.any(axis=1)
    first = place[np.arange(len(hits)), hits.argmax(axis=1)][found]
    if num_gallery is not None:
        length = num_gallery
    else:
        length = int(place[~found, -1].min()) if not found.all() else int(place.shape[1])
    length = min(length, max_rank)
    counts = np.bincount(first, minlength=length + 1)[1 : length + 1]
    return np.cumsum(counts) / len(hits)

"""Evaluation of a ranking that shows only the k best of each query."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.checks.text import warn
from murank.datasets.labels import JUNK_PID, Labels
from murank.rerank.ranking import Ranking


@dataclass(frozen=True)
class TruncatedEvaluation:
    """What k candidates of a query tell, by the Market-1501 rule."""

    cmc: NDArray[np.float64]  # [r] exact; ends where a list without a match ends
    mAP: float  # noqa: N815 - the field's name; a lower bound unless complete
    num_valid: int  # queries with a match somewhere in the gallery
    k: int  # length of each list
    complete: bool  # k is the whole gallery


def evaluate_truncated(
    ranking: Ranking, max_rank: int = 50, *, junk: Literal["keep", "drop"] | None = None
) -> TruncatedEvaluation:
    """Evaluate a ranking of the k best (Market-1501 rule, matches beyond k count as missed).

    `junk`: what becomes of pid -1, as in `murank_kernels.evaluate_rank`.

    Raises
    ------
    InputError
        The ranking has no labels, or no query has a match.
    """
    labels = ranking.labels
    if labels is None:
        raise InputError("the ranking has no pids and camids to evaluate it by")
    counts = _counts(labels, junk)
    matches = np.where(counts[0], labels.num_matches(), 0)
    valid = matches > 0
    if not valid.any():
        raise InputError("no query has a gallery image of its pid from another camera")
    same_pid = labels.g_pids[ranking.indices] == labels.q_pids[:, None]
    same_camera = labels.g_camids[ranking.indices] == labels.q_camids[:, None]
    kept = (counts[1][ranking.indices] & ~(same_pid & same_camera))[valid]
    hits = same_pid[valid] & kept
    place = np.cumsum(kept, axis=1)  # rank of each kept candidate once the others are dropped
    precisions = np.where(hits, np.cumsum(hits, axis=1) / np.maximum(place, 1), 0)
    complete = ranking.indices.shape[1] == len(ranking.gallery_paths)
    return TruncatedEvaluation(
        cmc=_cmc(hits, place, int(counts[1].sum()) if complete else None, max_rank),
        mAP=float((precisions.sum(axis=1) / matches[valid]).mean()),
        num_valid=int(valid.sum()),
        k=ranking.indices.shape[1],
        complete=complete,
    )


def _counts(labels: Labels, junk: str | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which queries [Q] and gallery items [G] count."""
    if junk not in (None, "keep", "drop"):
        raise InputError(f"junk must be 'keep' or 'drop', got {junk!r}")
    for note in labels.junk_notes({}) if junk is None else ():
        warn(note)
    query, gallery = (
        pids != JUNK_PID if junk == "drop" else np.ones(len(pids), bool)
        for pids in (labels.q_pids, labels.g_pids)
    )
    return query, gallery


def _cmc(
    hits: NDArray[np.bool_], place: NDArray[np.int64], num_gallery: int | None, max_rank: int
) -> NDArray[np.float64]:
    """Return the curve up to the shortest list that shows no match: beyond it nothing is known."""
    has_match = hits.any(axis=1)
    first = place[np.arange(len(hits)), hits.argmax(axis=1)][has_match]
    if num_gallery is not None:
        length = num_gallery
    else:
        length = int(place[~has_match, -1].min()) if not has_match.all() else int(place.shape[1])
    length = min(length, max_rank)
    counts = np.bincount(first, minlength=length + 1)[1 : length + 1]
    return np.cumsum(counts) / len(hits)

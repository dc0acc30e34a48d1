"""Evaluation of a ranking that shows only the k best of each query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.checks.text import warn
from murank.rerank.ranking import Ranking
from murank.rerank.verdicts import SAME_CAMERA, Verdicts, junk_notes, why_not
from murank_kernels.evaluation.drop_rule import Drop


@dataclass(frozen=True)
class TruncatedEvaluation:
    """What k candidates of a query tell, by the Market-1501 rule."""

    cmc: NDArray[np.float64]  # [r] exact; ends where a list without a match ends
    mAP: float  # noqa: N815 - the field's name; a lower bound unless complete
    num_valid: int  # queries with a match somewhere in the gallery
    k: int  # length of each list
    complete: bool  # k is the whole gallery


def evaluate_truncated(
    ranking: Ranking,
    max_rank: int = 50,
    *,
    junk: Literal["keep", "drop"] | None = None,
    drop: Drop = SAME_CAMERA,
    camera_groups: Sequence[Sequence[int]] = (),
) -> TruncatedEvaluation:
    """Evaluate a ranking of the k best (protocol market1501; matches beyond k count as missed).

    `junk`, `drop` and `camera_groups` are as in `murank_kernels.evaluate_rank`.

    Raises
    ------
    InputError
        The ranking has no labels, or no query has a match.
    """
    protocol = {"junk": junk, "drop": drop, "camera_groups": camera_groups}
    verdicts = _verdicts(ranking, protocol)
    matches = verdicts.num_matches
    valid = matches > 0
    if not valid.any():
        raise InputError(verdicts.no_match)
    same_person, dropped = verdicts.listed(ranking.indices)
    kept = ~dropped[valid]
    hits = same_person[valid] & kept
    place = np.cumsum(kept, axis=1)  # rank of each kept candidate once the others are dropped
    precisions = np.where(hits, np.cumsum(hits, axis=1) / np.maximum(place, 1), 0)
    complete = ranking.indices.shape[1] == len(ranking.gallery_paths)
    num_counted = int(verdicts.counted_images.sum())
    return TruncatedEvaluation(
        cmc=_cmc(hits, place, num_counted if complete else None, max_rank),
        mAP=float((precisions.sum(axis=1) / matches[valid]).mean()),
        num_valid=int(valid.sum()),
        k=ranking.indices.shape[1],
        complete=complete,
    )


def _verdicts(ranking: Ranking, protocol: Mapping[str, Any]) -> Verdicts:
    junk = protocol["junk"]
    if junk not in (None, "keep", "drop"):
        raise InputError(f"junk must be 'keep' or 'drop', got {junk!r}")
    labels = ranking.labels
    if labels is None:
        raise InputError("the ranking has no pids to evaluate it by")
    reason = why_not(labels, protocol, "the ranking has")
    if reason:
        raise InputError(reason)
    for note in junk_notes(labels, {}) if junk is None else ():
        warn(note)
    return Verdicts(labels, protocol)


def _cmc(
    hits: NDArray[np.bool_], place: NDArray[Any], num_gallery: int | None, max_rank: int
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

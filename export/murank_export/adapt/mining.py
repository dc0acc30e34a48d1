"""Query-candidate hard mining: the pairs of images that an encoder finds hardest to tell.

Every image is a query once. Its candidates are the k least similar images of the same person (hard
positives) and the k most similar images of other people (hard negatives), fewer where fewer exist
(Li & Gong, arXiv 2606.16161). Similarity is the cosine of the encoder's features.

People are split into training and validation first, and both images of a pair are of the same
side: a negative of a training query is never an image of somebody who validates. So validation
asks about people whom training has not seen, neither as query nor as candidate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import InputError
from murank.pairs.labelled import Pair
from murank.rerank.methods import Progress
from murank_export.adapt.hardest import (
    F32,
    I64,
    Found,
    other_people,
    same_person,
    similarities,
    unit_rows,
)
from murank_export.adapt.mining_settings import MiningSettings
from murank_export.adapt.split import split_ids

SIDES = ("train", "val")


@dataclass(frozen=True)
class MinedPairs:
    """Pairs of rows, by query; the positives of a query come first, the hardest of each kind."""

    queries: I64  # [P] ascending
    candidates: I64  # [P]
    match: NDArray[np.bool_]  # [P] the same person
    similarity: NDArray[np.float64]  # [P] cosine

    def named(self, paths: Sequence[str]) -> list[Pair]:
        """Return the pairs by the images' paths [N]."""
        rows = zip(*(x.tolist() for x in (self.queries, self.candidates, self.match)), strict=True)
        return [Pair(paths[query], paths[candidate], match) for query, candidate, match in rows]


@dataclass(frozen=True)
class Mined:
    """What `mine_pairs` found."""

    train_ids: I64  # person ids, sorted
    val_ids: I64
    parts: dict[str, MinedPairs]  # train, val and, where asked for, random_train, random_val


def mine_pairs(
    features: NDArray[np.floating[Any]],
    pids: NDArray[np.integer[Any]],
    camids: NDArray[np.integer[Any]] | None = None,
    settings: MiningSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Mined:
    """Mine hard pairs; no N x N similarities are ever held.

    Parameters
    ----------
    features
        [N,D] of any scale, one row an image.
    pids, camids
        [N] person and camera ids; cameras are used by `cross_camera` only. Images of a pid below 0
        show nobody known (-1: junk, as in Market-1501): they are in no pair.
    settings
        None: `MiningSettings()`.
    progress
        Called as (side, queries done, queries).

    Raises
    ------
    InputError
        Arrays do not fit together, a row is NaN, infinite or zero, or one side would have no
        positive or no negative pair.
    """
    how = MiningSettings() if settings is None else settings
    _check_shapes(features, pids, camids)
    people = pids.astype(np.int64)
    cameras = _cameras(camids, len(people)) if how.cross_camera else None
    known = people >= 0
    _check_side(people[known], None if cameras is None else cameras[known], "the set")
    units = unit_rows(features)
    split = split_ids(people[known], val_ratio=how.val_ratio, seed=how.seed)
    sides = dict(zip(SIDES, (split.train, split.val), strict=True))
    rows = {side: np.flatnonzero(np.isin(people, ids)) for side, ids in sides.items()}
    for side in SIDES:
        inside = None if cameras is None else cameras[rows[side]]
        advice = "; pass another --val-ratio or --seed (val_ratio, seed)"
        _check_side(people[rows[side]], inside, f"the {side} side", advice)
    parts = {
        side: _hard(units, people, cameras, rows[side], how.k, side, progress) for side in SIDES
    }
    if how.random:
        for number, side in enumerate(SIDES):
            drawn = _random(units, people, rows[side], how.k, [how.seed, number])
            parts[f"random_{side}"] = drawn
    return Mined(split.train, split.val, parts)


def _hard(
    units: F32, pids: I64, camids: I64 | None, rows: I64, k: int, side: str, show: Progress | None
) -> MinedPairs:
    positives = list(same_person(units, pids, rows, k, camids))
    negatives = list(_told(other_people(units, pids, rows, k), side, len(rows), show))
    queries, candidates, similarity = (
        np.concatenate([getattr(found, name) for found in (*positives, *negatives)])
        for name in ("queries", "candidates", "similarity")
    )
    # Stable: within a query the positives stay ahead, and each kind in its order.
    order = np.argsort(queries, kind="stable")
    queries, candidates = queries[order], candidates[order]
    return MinedPairs(queries, candidates, pids[queries] == pids[candidates], similarity[order])


def _told(blocks: Iterator[Found], side: str, total: int, show: Progress | None) -> Iterator[Found]:
    done = 0
    for found in blocks:
        done += len(np.unique(found.queries))
        if show is not None:
            show(side, done, total)
        yield found


def _random(units: F32, pids: I64, rows: I64, k: int, seed: list[int]) -> MinedPairs:
    """Draw k others a query, none twice: pairs as they come, nearly all of different people."""
    random, others = np.random.default_rng(seed), len(rows) - 1
    draws = [random.choice(others, min(k, others), replace=False) for _ in rows]
    drawn = np.stack(draws).astype(np.int64)
    own = np.arange(len(rows))[:, None]
    drawn += drawn >= own  # everyone but the query itself
    queries, candidates = np.repeat(rows, drawn.shape[1]), rows[drawn.ravel()]
    match = pids[queries] == pids[candidates]
    return MinedPairs(queries, candidates, match, similarities(units, queries, candidates))


def _check_shapes(features: NDArray[Any], pids: NDArray[Any], camids: NDArray[Any] | None) -> None:
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(f"features must have shape [N, D], got {list(features.shape)}")
    if features.dtype.kind != "f":
        raise InputError(f"features must be floating point, got {features.dtype}")
    for name, labels in (("pids", pids), ("camids", camids)):
        if labels is not None and labels.shape != features.shape[:1]:
            raise InputError(f"{name} must have shape [{len(features)}], got {list(labels.shape)}")


def _cameras(camids: NDArray[Any] | None, count: int) -> I64:
    if camids is None:
        raise InputError(
            f"the cameras of the {count} images are unknown: leave --cross-camera (cross_camera) "
            "away, or add camids"
        )
    return camids.astype(np.int64)


def _check_side(pids: I64, camids: I64 | None, name: str, advice: str = "") -> None:
    """Raise unless there is a positive and a negative pair."""
    _, person, images = np.unique(pids, return_inverse=True, return_counts=True)
    if len(images) == 1:
        raise InputError(f"{name} is of one person, so it has no negative pair{advice}")
    if images.max() < 2:
        raise InputError(f"nobody of {name} has two images, so it has no positive pair{advice}")
    if camids is not None:
        seen = np.unique(np.stack([person, camids]), axis=1)[0]
        if np.bincount(seen).max() < 2:
            raise InputError(
                f"nobody of {name} was seen by two cameras, so it has no positive pair{advice}; or "
                "leave --cross-camera (cross_camera) away"
            )

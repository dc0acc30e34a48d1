"""Other ways to fit an alignment, and what a fit needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, cast

import numpy as np
from photos.figures import Array, Score, aligned, aligned_by, evaluate, subset
from photos.kept import Kept
from photos.tables import mean_score

import murank_kernels
from murank import FeatureSet
from murank_kernels import AlignmentWarning, CameraAlignment

CROPS = (5, 20, 50, 100, 300)
GALLERIES = (100, 300, 600)
SHARES = (0.1, 0.05)
_DRAWS = 3
_MANY_PEOPLE = 500
ca_jaccard: Callable[..., Array] = cast("Any", murank_kernels.ca_jaccard)  # one matrix [Q,G]
Settings = Callable[[], dict[str, Any]]  # of a fit, made when it is its turn
Between = Callable[[Array, Array], Array]  # distances of rows of two cameras


@dataclass(frozen=True)
class Gallery:
    """Rows that an alignment is fitted on, and who they are."""

    features: Array
    camids: Array
    pids: Array

    @classmethod
    def of(cls, features: FeatureSet) -> Gallery:
        """Take the gallery of a set."""
        rows = features.gallery
        assert rows.camids is not None and rows.pids is not None  # noqa: PT018  of readers here
        return cls(rows.features, rows.camids, rows.pids)

    def only(self, rows: Array) -> Gallery:
        """Keep some rows."""
        return Gallery(self.features[rows], self.camids[rows], self.pids[rows])

    def fit(self, **settings: Any) -> CameraAlignment:
        """Fit; too few pairs fall back to the means, as the program does."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AlignmentWarning)
            made = CameraAlignment.fit(self.features, self.camids, **settings)
            if made.fell_back is None:
                return made
            # Means alone want all directions.
            return CameraAlignment.fit(self.features, self.camids, level="mean")


def alternatives(features: FeatureSet, kept: Kept) -> dict[str, dict[str, Score]]:
    """Measure each way to fit: encoder and CA-Jaccard."""
    gallery = Gallery.of(features)
    found: dict[str, dict[str, Score]] = {}
    for name, settings in _ways(gallery, quarter(features)):
        found[name] = kept.row(name, partial(_scores, features, gallery, settings))
    return found


def quarter(features: FeatureSet) -> int:
    """Directions that `auto` keeps."""
    width = features.features.shape[1]
    return int(min(width, max(128, width // 4)))


def _scores(features: FeatureSet, gallery: Gallery, settings: Settings) -> dict[str, Score]:
    ready = aligned_by(features, gallery.fit(**settings()))
    return {name: evaluate(ready, name).score for name in ("encoder", "CA-Jaccard")}


def _ways(gallery: Gallery, dims: int) -> Iterator[tuple[str, Settings]]:
    """Name each way, and what makes the settings of its fit."""
    width = gallery.features.shape[1]
    yield f"as it is done, {dims} directions", partial(dict, dims=dims)
    for other in (64, 128, 256):
        if other < width and other != dims:
            yield f"{other} directions", partial(dict, dims=other)
    yield f"all {width} directions", dict
    for ridge in (0.5, 2.0):
        yield f"ridge {ridge:g}", partial(dict, dims=dims, ridge=ridge)
    for prior in (0, 100):
        yield f"means drawn by {prior} rows", partial(dict, dims=dims, prior=prior)
    for most in (300, 1000):
        yield f"{most} rows a camera searched", partial(dict, dims=dims, max_rows=most)
    for count, fades in ((1, False), (2, True), (3, False), (3, True)):
        name = f"{count} nearest each way" + (", weight 1/(1+rank)" if fades else ", all alike")
        yield name, partial(mutual, gallery, _cosine, count, dims=dims, fades=fades)
    yield "1 nearest by CA-Jaccard", partial(mutual, gallery, _by_ca_jaccard, 1, dims=dims)
    yield "as it is done, without wrong pairs", partial(right_pairs, gallery, dims=dims)


def mutual(
    gallery: Gallery, between: Between, count: int, *, dims: int, fades: bool = False
) -> dict[str, Any]:
    """Pairs of two cameras that are among each other's `count` nearest, and their weights."""
    rows = gallery.fit(level="mean").apply(gallery.features, gallery.camids)
    pairs, weights = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for one, other in combinations(np.unique(gallery.camids), 2):
        first, second = (
            np.flatnonzero(gallery.camids == one),
            np.flatnonzero(gallery.camids == other),
        )
        distances = between(rows[first], rows[second])
        ranks = np.maximum(_ranks(distances), _ranks(distances.T).T)
        i, j = np.nonzero(ranks < count)
        pairs.append(np.stack([first[i], second[j]], axis=1))
        weights.append(1 / (1 + ranks[i, j]) if fades else np.ones(len(i)))
    return {"dims": dims, "pairs": np.concatenate(pairs), "weights": np.concatenate(weights)}


def right_pairs(gallery: Gallery, *, dims: int) -> dict[str, Any]:
    """Pairs as they are found, without those of two people: what no appliance knows."""
    made = gallery.fit(dims=dims)
    pids = gallery.pids[made.pairs]
    right = pids[:, 0] == pids[:, 1]
    return {"dims": dims, "pairs": made.pairs[right], "weights": made.weights[right]}


def crops_needed(features: FeatureSet, kept: Kept) -> dict[str, dict[str, Score]]:
    """Measure k-reciprocal on fits that see a few gallery images of each camera only."""
    gallery = Gallery.of(features)
    found: dict[str, dict[str, Score]] = {}
    least = int(np.unique(gallery.camids, return_counts=True)[1].min())
    ways: dict[str, dict[str, Any]] = {
        "mean, nothing drawn": {"level": "mean", "prior": 0}, "mean": {"level": "mean"},
        "pairs": {"dims": quarter(features)},
    }  # fmt: skip
    for count in (one for one in CROPS if one < least):
        seen = gallery.only(_some_of_each(gallery.camids, count))
        for name, settings in ways.items():
            found.setdefault(name, {})[str(count)] = kept.row(
                f"{name} of {count}",
                partial(_fitted_on, features, seen, settings),
            )
    return found


def small_galleries(features: FeatureSet, kept: Kept) -> dict[str, dict[str, Score]]:
    """Measure k-reciprocal on galleries that hold a few images of each camera; three draws."""
    least = int(np.unique(Gallery.of(features).camids, return_counts=True)[1].min())
    found: dict[str, dict[str, Score]] = {}
    for count in (one for one in GALLERIES if one < least):
        for level in ("as is", "mean", "pairs"):
            found.setdefault(level, {})[str(count)] = kept.row(
                f"{level} of {count}", partial(_in_small_galleries, features, count, level)
            )
    return found


def few_in_two_cameras(features: FeatureSet, kept: Kept) -> dict[str, dict[str, Score]]:
    """Measure CA-Jaccard where most people are seen by one camera only; mean of three draws."""
    found: dict[str, dict[str, Score]] = {}
    if len(np.unique(Gallery.of(features).pids)) < _MANY_PEOPLE:
        return found  # a twentieth of them is nobody
    for share in SHARES:
        for level in ("as is", "mean", "pairs"):
            found.setdefault(f"{share:.0%}", {})[level] = kept.row(
                f"{share:.0%} {level}", partial(_mean_of_draws, features, share, level)
            )
    return found


def _fitted_on(features: FeatureSet, seen: Gallery, settings: dict[str, Any]) -> Score:
    return evaluate(aligned_by(features, seen.fit(**settings)), "k-reciprocal").score


def _in_small_galleries(features: FeatureSet, count: int, level: str) -> Score:
    return mean_score(
        [
            evaluate(aligned(_small(features, count, draw), level), "k-reciprocal").score
            for draw in range(_DRAWS)
        ]
    )


def _small(features: FeatureSet, count: int, draw: int) -> FeatureSet:
    """Keep `count` gallery images of each camera, and the queries that find a match in them."""
    labels = features.labels
    assert labels is not None
    assert labels.q_camids is not None and labels.g_camids is not None  # noqa: PT018  of readers here
    rows = _some_of_each(labels.g_camids, count, draw)
    cameras: dict[int, set[int]] = {}
    for pid, camid in zip(
        labels.g_pids[rows].tolist(), labels.g_camids[rows].tolist(), strict=True
    ):
        cameras.setdefault(pid, set()).add(camid)
    asked = zip(labels.q_pids.tolist(), labels.q_camids.tolist(), strict=True)
    matched = [bool(cameras.get(pid, set()) - {camid}) for pid, camid in asked]
    queries = np.flatnonzero(matched)
    return subset(features, np.concatenate([queries, features.num_query + rows]))


def _mean_of_draws(features: FeatureSet, share: float, level: str) -> Score:
    return mean_score(
        [
            evaluate(aligned(_few(features, share, draw), level), "CA-Jaccard").score
            for draw in range(_DRAWS)
        ]
    )


def _few(features: FeatureSet, share: float, draw: int) -> FeatureSet:
    """Keep a share of the people in all their cameras, each of the others in one of theirs."""
    random = np.random.default_rng(draw)
    pids, camids = features.pids, features.camids
    assert pids is not None and camids is not None  # noqa: PT018  of readers here
    people = np.unique(pids)
    in_all = random.choice(people, round(share * len(people)), replace=False)
    kept = np.isin(pids, in_all)
    is_query = np.arange(len(pids)) < features.num_query
    for pid in np.setdiff1d(people, in_all):
        own = (pids == pid) & ~is_query
        if own.any():
            kept |= own & (camids == random.choice(np.unique(camids[own])))
    return subset(features, np.flatnonzero(kept))


def _some_of_each(camids: Array, count: int, draw: int = 0) -> Array:
    """Draw `count` rows of each camera."""
    random = np.random.default_rng(draw)
    cameras = np.unique(camids)
    members = [random.permutation(np.flatnonzero(camids == one))[:count] for one in cameras]
    return np.sort(np.concatenate(members))


def _ranks(distances: Array) -> Array:
    """Place of each entry in its row, from 0."""
    order = np.argsort(distances, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    return ranks


def _cosine(first: Array, second: Array) -> Array:
    return 1 - first @ second.T


def _by_ca_jaccard(first: Array, second: Array) -> Array:
    cameras = np.repeat([0, 1], [len(first), len(second)])
    return ca_jaccard(np.concatenate([first, second]), len(first), cameras)

"""What a shortlist costs in accuracy: one query at a time, crops or tracks as rows.

    python benchmarks/gallery_accuracy.py F.npz ...            features of `murank score`
    python benchmarks/gallery_accuracy.py F.npz --queries 100  quicker
    python benchmarks/gallery_accuracy.py F.npz --relate engine/   what mu between tracks adds

The gallery is that of the file, aligned as `Gallery.align` does; each query is re-ranked among its
M nearest rows, the others come after them as the encoder has them. A track is the mean unit
feature of what one camera saw of one person: what a tracker would give at best. With --relate the
MLLM of an engine is asked about each query and its 20 nearest tracks, and about each track and its
nearest few, by the crops that the file names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from murank import Engine, FeatureSet, Labels, load_features
from murank.gallery.pictures import quality
from murank_kernels import CameraAlignment, ca_jaccard, evaluate_rank, k_reciprocal

SHORTLISTS = (100, 200, 500, 1000, 2000)
METHODS = ("k-reciprocal", "ca-jaccard")
CANDIDATES, SHORTLIST = 20, 500  # as a gallery's search has them
FEW = (5, 10, 20)  # nearest tracks that the MLLM is asked about


@dataclass(frozen=True)
class Rows:
    """What is searched."""

    features: NDArray[Any]  # [G,D] unit rows
    pids: NDArray[Any]
    camids: NDArray[Any]
    owner: NDArray[Any]  # of each crop of the gallery, its row


@dataclass(frozen=True)
class Mu:
    """Answers of the MLLM for one query's shortlist."""

    own: NDArray[Any]  # [K] of the nearest rows
    between: NDArray[Any]  # [M,M] among the nearest; NaN: not asked


def tracks(features: NDArray[Any], pids: NDArray[Any], camids: NDArray[Any]) -> Rows:
    """One row for each person and camera; a stranger is nobody's, each crop a track."""
    alone = np.where(pids > 0, 0, np.arange(1, len(pids) + 1))
    keys, owner = np.unique(np.stack([pids, camids, alone], 1), axis=0, return_inverse=True)
    sums = np.zeros((len(keys), features.shape[1]))
    np.add.at(sums, owner.ravel(), features)
    rows = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return Rows(rows.astype(np.float32), keys[:, 0], keys[:, 1], owner.ravel())


def order_of(
    query: NDArray[Any], camid: int, rows: Rows, method: str, most: int, mu: Mu | None = None
) -> NDArray[np.int64]:
    """All rows [G], best first."""
    order = np.argsort(-(rows.features @ query), kind="stable")
    near = order[:most]
    features = np.vstack([query, rows.features[near]])
    given: dict[str, Any] = {"normalize": False}
    if mu is not None:
        given |= {"mu": mu.own[None], "candidates": np.arange(len(mu.own))[None]}
        if np.isfinite(mu.between).any():
            given |= _between(mu.between)
    if method == "k-reciprocal":
        distances = k_reciprocal(features, 1, **given)
    else:
        distances = ca_jaccard(features, 1, np.append(camid, rows.camids[near]), **given)
    best = np.argsort(np.asarray(distances)[0], kind="stable")
    return np.concatenate([near[best], order[most:]])


def _between(mu: NDArray[Any]) -> dict[str, Any]:
    """Pairs of which mu is known, as the kernels take them: -1 where there is none."""
    count = np.isfinite(mu).sum(axis=1).max()
    others = np.argsort(np.isnan(mu), axis=1, kind="stable")[:, :count]
    values = np.take_along_axis(mu, others, 1)
    return {"gallery_mu": values, "gallery_candidates": np.where(np.isnan(values), -1, others)}


def measured(
    queries: NDArray[Any], camids: NDArray[Any], pids: NDArray[Any], rows: Rows, method: str,
    most: int, mu: Sequence[Mu] | None = None,
) -> str:  # fmt: skip
    """Return mAP / rank-1 in percent."""
    distances = np.empty((len(queries), len(rows.features)), np.float32)
    for i, query in enumerate(queries):
        asked = None if mu is None else mu[i]
        order = order_of(query, int(camids[i]), rows, method, most, asked)
        distances[i, order] = np.arange(len(order))
    found = evaluate_rank(distances, pids, rows.pids, camids, rows.camids)
    return f"{100 * found.mAP:.1f} / {100 * found.cmc[0]:.1f}"


def aligned(rows: Rows, features: NDArray[Any], camids: NDArray[Any]) -> tuple[Rows, NDArray[Any]]:
    """Rows and queries without their cameras' share, as `Gallery.align` has them."""
    alignment = CameraAlignment.fit(
        rows.features, rows.camids, dims=max(128, rows.features.shape[1] // 4), quiet=True
    )
    found = alignment.apply(rows.features, rows.camids)
    return Rows(found, rows.pids, rows.camids, rows.owner), alignment.apply(features, camids)


def best_crops(stored: FeatureSet, rows: Rows) -> list[str]:
    """Of each row the crop that a gallery would show to the MLLM."""
    best: dict[int, tuple[float, str]] = {}
    for owner, path in zip(rows.owner.tolist(), stored.paths[stored.num_query :], strict=True):
        with Image.open(path) as image:
            best[owner] = max(
                best.get(owner, (0.0, "")), (quality(image.convert("RGB")), str(path))
            )
    return [best[i][1] for i in range(len(rows.features))]


def known_pairs(near: NDArray[Any], asked: NDArray[Any]) -> NDArray[Any]:
    """Mu [G,G] as `Gallery.relate` asks it: the newest track first, no pair twice; NaN: none."""
    between = np.full((len(near), len(near)), np.nan)
    for row in reversed(range(len(near))):
        new = np.isnan(between[near[row], row])
        between[row, near[row][new]] = asked[row][new]
    return between


def relate(engine: Engine, stored: FeatureSet, labels: Labels, chosen: NDArray[Any]) -> None:
    """Print what mu between tracks adds, with mu of the query's candidates in both."""
    unit = stored.features / np.linalg.norm(stored.features, axis=1, keepdims=True)
    assert labels.q_camids is not None and labels.g_camids is not None  # noqa: PT018  main looked
    given = tracks(unit[stored.num_query :], labels.g_pids, labels.g_camids)
    q_pids, q_camids = labels.q_pids[chosen], labels.q_camids[chosen]
    rows, queries = aligned(given, unit[chosen], q_camids)
    crops, most = best_crops(stored, rows), min(SHORTLIST, len(rows.features))
    likeness = rows.features @ rows.features.T
    np.fill_diagonal(likeness, -np.inf)
    near = np.argsort(-likeness, axis=1, kind="stable")[:, : FEW[-1]]
    mu_of = engine.mu
    asked = np.array([mu_of(crop, [crops[j] for j in near[i]]) for i, crop in enumerate(crops)])
    orders = [np.argsort(-(rows.features @ query), kind="stable")[:most] for query in queries]
    own = [
        mu_of(str(stored.paths[q]), [crops[j] for j in order[:CANDIDATES]])
        for q, order in zip(chosen, orders, strict=True)
    ]
    print(f"\n{len(crops)} tracks as rows, {len(queries)} queries, shortlist {most}")
    print(f"| mu of | {' | '.join(METHODS)} |\n|---|{'---|' * len(METHODS)}")
    for few in (None, 0, *FEW):
        between = known_pairs(near[:, :few], asked[:, :few])
        mu = [
            Mu(one, between[np.ix_(order, order)])
            for one, order in zip(own, orders, strict=True)
        ]  # fmt: skip
        name = "nothing" if few is None else f"the query's {CANDIDATES}"
        name += f", each track and its nearest {few}" if few else ""
        cells = [
            measured(queries, q_camids, q_pids, rows, method, most, None if few is None else mu)
            for method in METHODS
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def shortlists(
    file: Path, stored: FeatureSet, labels: Labels, chosen: NDArray[Any]
) -> None:  # fmt: skip
    """Print a table for each kind of row."""
    unit = stored.features / np.linalg.norm(stored.features, axis=1, keepdims=True)
    assert labels.q_camids is not None and labels.g_camids is not None  # noqa: PT018  main looked
    features, pids, camids = unit[stored.num_query :], labels.g_pids, labels.g_camids
    crops = Rows(features, pids, camids, np.arange(len(features)))
    q_pids, q_camids = labels.q_pids[chosen], labels.q_camids[chosen]
    for kind, given in (("crops", crops), ("tracks", tracks(features, pids, camids))):
        rows, queries = aligned(given, unit[chosen], q_camids)
        count = len(rows.features)
        print(f"\n{file.name}: {count} {kind} as rows, {len(chosen)} queries")
        print("| re-ranked among the nearest | k-reciprocal mAP / rank-1 | CA-Jaccard |")
        print("|---|---|---|")
        for most in (1, *(m for m in SHORTLISTS if m < count), count):
            cells = [
                measured(queries, q_camids, q_pids, rows, method, most)
                for method in METHODS[: 1 if most == 1 else None]
            ]
            name = "none (encoder)" if most == 1 else f"{most:,}"
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables of each file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--relate", type=Path, metavar="ENGINE")
    arguments = parser.parse_args()
    for file in arguments.files:
        stored = load_features(file)
        labels = stored.labels
        assert labels is not None, f"{file} has no pids"
        assert stored.camids is not None, f"{file} has no camids"
        chosen = np.random.default_rng(0).permutation(stored.num_query)[: arguments.queries]
        if arguments.relate is None:
            shortlists(file, stored, labels, chosen)
            continue
        with Engine.from_pretrained(arguments.relate) as engine:
            relate(engine, stored, labels, chosen)


if __name__ == "__main__":
    main()

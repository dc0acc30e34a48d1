"""What a shortlist costs in accuracy: one query at a time, crops or tracks as rows.

    python benchmarks/gallery_accuracy.py F.npz ...            features of `murank score`
    python benchmarks/gallery_accuracy.py F.npz --queries 100  quicker

The gallery is that of the file, aligned as `Gallery.align` does; each query is re-ranked among its
M nearest rows, the others come after them as the encoder has them. A track is the mean unit
feature of what one camera saw of one person: what a tracker would give at best.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import load_features
from murank_kernels import CameraAlignment, ca_jaccard, evaluate_rank, k_reciprocal

SHORTLISTS = (100, 200, 500, 1000, 2000)
SETTINGS: dict[str, dict[str, Any]] = {"k-reciprocal": {}, "ca-jaccard": {}}


def tracks(
    features: NDArray[Any], pids: NDArray[Any], camids: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """One row for each person and camera."""
    pairs, owner = np.unique(np.stack([pids, camids], 1), axis=0, return_inverse=True)
    sums = np.zeros((len(pairs), features.shape[1]))
    np.add.at(sums, owner.ravel(), features)
    rows = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return rows.astype(np.float32), pairs[:, 0], pairs[:, 1]


def order_of(
    query: NDArray[Any],
    camid: int,
    rows: NDArray[Any],
    camids: NDArray[Any],
    method: str,
    most: int,
) -> NDArray[np.int64]:
    """All rows [G], best first."""
    order = np.argsort(-(rows @ query), kind="stable")
    near = order[:most]
    features = np.vstack([query, rows[near]])
    if method == "k-reciprocal":
        distances = k_reciprocal(features, 1, normalize=False)
    else:
        distances = ca_jaccard(features, 1, np.append(camid, camids[near]), normalize=False)
    best = np.argsort(np.asarray(distances)[0], kind="stable")
    return np.concatenate([near[best], order[most:]])


def main() -> None:
    """Print a table for each file and kind of row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--queries", type=int, default=300)
    arguments = parser.parse_args()
    for file in arguments.files:
        stored = load_features(file)
        labels = stored.labels
        assert labels is not None, f"{file} has no labels"
        chosen = np.random.default_rng(0).permutation(stored.num_query)[: arguments.queries]
        unit = stored.features / np.linalg.norm(stored.features, axis=1, keepdims=True)
        crops = unit[stored.num_query :], labels.g_pids, labels.g_camids
        for kind, (rows, pids, camids) in (("crops", crops), ("tracks", tracks(*crops))):
            alignment = CameraAlignment.fit(
                rows, camids, dims=max(128, rows.shape[1] // 4), quiet=True
            )
            aligned = alignment.apply(rows, camids)
            queries = alignment.apply(unit[chosen], labels.q_camids[chosen])
            print(f"\n{file.name}: {len(aligned)} {kind} as rows, {len(chosen)} queries")
            print("| re-ranked among the nearest | k-reciprocal mAP / rank-1 | CA-Jaccard |")
            print("|---|---|---|")
            for most in (1, *(m for m in SHORTLISTS if m < len(aligned)), len(aligned)):
                cells = []
                for method in SETTINGS if most > 1 else ("k-reciprocal",):
                    distances = np.empty((len(chosen), len(aligned)), np.float32)
                    for i, query in enumerate(queries):
                        camid = int(labels.q_camids[chosen[i]])
                        order = order_of(query, camid, aligned, camids, method, most)
                        distances[i, order] = np.arange(len(order))
                    found = evaluate_rank(
                        distances, labels.q_pids[chosen], pids, labels.q_camids[chosen],
                        camids,
                    )  # fmt: skip
                    cells.append(f"{100 * found.mAP:.1f} / {100 * found.cmc[0]:.1f}")
                name = "none (encoder)" if most == 1 else f"{most:,}"
                print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Your own features as arrays: align cameras, re-rank, evaluate. No engine, no MLLM.

python examples/rerank_arrays.py features.npz
"""

import argparse
from pathlib import Path

from murank import InputError, load_features
from murank_kernels import align_cameras, ca_jaccard, evaluate_rank, k_reciprocal


def main(file: Path) -> None:
    """Print mAP and rank-1 of the same features four times."""
    features = load_features(file)
    labels, camids, queries = features.labels, features.camids, features.num_query
    if labels is None or camids is None:
        raise SystemExit(f"{file} has no pids and camids to evaluate with")
    aligned = align_cameras(features.features, camids, num_query=queries)
    rankings = {
        "k-reciprocal": k_reciprocal(features.features, queries),
        "k-reciprocal, aligned": k_reciprocal(aligned, queries),
        "CA-Jaccard": ca_jaccard(features.features, queries, camids),
        "CA-Jaccard, aligned": ca_jaccard(aligned, queries, camids),
    }
    for name, distances in rankings.items():
        found = evaluate_rank(
            distances, labels.q_pids, labels.g_pids, labels.q_camids, labels.g_camids
        )
        print(f"{name:<22} mAP {100 * found.mAP:5.2f}  rank-1 {100 * found.cmc[0]:5.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="features: an .npz of murank")
    args = parser.parse_args()
    try:
        main(args.file)
    except InputError as error:
        parser.error(str(error))

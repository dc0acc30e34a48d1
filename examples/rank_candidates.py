"""The MLLM alone: crops that may show the person of a query crop, best first.

python examples/rank_candidates.py people
"""

import argparse
from pathlib import Path

from murank import Engine

ENGINE = Path(__file__).parents[1] / "benchmarks" / "miniature" / "engine"


def main(folder: Path) -> None:
    """Rank twelve gallery crops for the first query."""
    query = min((folder / "query").iterdir())
    candidates = sorted((folder / "bounding_box_test").iterdir())[:12]
    print(f"candidate matches of {query.name}")
    with Engine.from_pretrained(ENGINE) as engine:
        matches = engine.rank(query, candidates, top_k=5)
    for match in matches:
        print(f"  {candidates[match.corpus_id].name}  mu {match.mu:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a data set, as murank world draws it")
    args = parser.parse_args()
    if not (args.folder / "query").is_dir():
        parser.error(f"{args.folder} has no query/ and bounding_box_test/: murank world draws some")
    main(args.folder)

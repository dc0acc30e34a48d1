"""The MLLM alone: crops that may show the person of a query crop, best first.

python examples/rank_candidates.py people
"""

import sys
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
    main(Path(sys.argv[1]))

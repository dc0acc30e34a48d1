"""Vision tokens kept on disk from one run to the next, and their erasure.

python examples/keep_and_erase.py people kept
"""

import sys
from pathlib import Path

from murank import Engine

ENGINE = Path(__file__).parents[1] / "benchmarks" / "miniature" / "engine"


def files(folder: Path) -> int:
    """How many images are kept."""
    return sum(path.is_file() for path in folder.rglob("*"))


def main(folder: Path, kept: Path) -> None:
    """Ask about four crops, forget one, forget all."""
    engine = Engine.from_pretrained(ENGINE, cache_dir=kept, cache_max_days=30)
    query, *candidates = sorted((folder / "bounding_box_test").iterdir())[:5]
    engine.mu(query, candidates)
    print(f"kept: {files(kept)} files, readable by their owner alone")
    engine.forget(candidates[0])
    print(f"without {candidates[0].name}: {files(kept)}")
    engine.clear_cache()
    print(f"cleared: {files(kept)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

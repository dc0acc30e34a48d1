"""Vision tokens kept on disk from one run to the next, and their erasure.

python examples/keep_and_erase.py people kept
"""

import argparse
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a data set, as murank world draws it")
    parser.add_argument("kept", type=Path, help="a folder for what is kept")
    args = parser.parse_args()
    if not (args.folder / "query").is_dir():
        parser.error(f"{args.folder} has no query/ and bounding_box_test/: murank world draws some")
    main(args.folder, args.kept)

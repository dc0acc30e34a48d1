"""A gallery in memory with its cameras, one query at a time, 50 ms each.

python examples/search_in_time.py people
"""

import argparse
from pathlib import Path

from murank import Engine, Searcher

ENGINE = Path(__file__).parents[1] / "benchmarks" / "miniature" / "engine"


def camera_of(image: Path) -> int:
    """The camera in a name of Market-1501's style: 0001_c3s1_000151_01.jpg."""
    return int(image.name.split("_c")[1][0])


def main(folder: Path) -> None:
    """Search for five queries; features are aligned where cameras show enough people."""
    gallery = sorted((folder / "bounding_box_test").glob("*.jpg"))
    cameras = [camera_of(image) for image in gallery]
    searcher = Searcher.from_images(Engine.from_pretrained(ENGINE), gallery, camids=cameras)
    print(f"{len(gallery)} images, alignment: {searcher.alignment.level}")
    for query in sorted((folder / "query").glob("*.jpg"))[:5]:
        found = searcher.search(query, camid=camera_of(query), top_k=3, deadline_ms=50)
        names = ", ".join(gallery[match.corpus_id].name for match in found.matches)
        print(f"{query.name}: {names} ({found.scored} of {found.candidates} seen by the MLLM)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a data set, as murank world draws it")
    args = parser.parse_args()
    if not (args.folder / "query").is_dir():
        parser.error(f"{args.folder} has no query/ and bounding_box_test/: murank world draws some")
    main(args.folder)

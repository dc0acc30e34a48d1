"""A camera appliance: tracks come in, a person is looked for, forgotten in time, erased on demand.

python examples/appliance.py people
"""

import argparse
import time
from pathlib import Path

from murank import Engine, Gallery

ENGINE = Path(__file__).parents[1] / "benchmarks" / "miniature" / "engine"


def person_and_camera_of(image: Path) -> tuple[str, int]:
    """What a tracker would say of a name of Market-1501's style: 0001_c3s1_000151_01.jpg."""
    return image.name.split("_")[0], int(image.name.split("_c")[1][0])


def main(folder: Path, file: Path) -> None:
    """Take in a gallery, search it, erase one person, and show that nothing is left."""
    engine, now = Engine.from_pretrained(ENGINE), time.time()
    query = min((folder / "query").glob("*.jpg"))
    person, own = person_and_camera_of(query)
    with Gallery.open(file, engine, retention=72 * 3600) as gallery:
        for seconds, crop in enumerate(sorted((folder / "bounding_box_test").glob("*.jpg"))):
            someone, camera = person_and_camera_of(crop)
            gallery.add(
                [crop], camera=camera, time=now - 3600 + seconds, track=f"c{camera}-{someone}",
                subject=f"case {someone}",
            )  # fmt: skip
        gallery.maintain()  # in a quiet moment: the alignment of the cameras, retention
        gallery.relate(budget_pairs=200)  # in idle time: the MLLM, about tracks among themselves
        others = [camera for camera in gallery.stats().cameras if camera != own]
        found = gallery.search(query, camera=own, cameras=others, since=now - 7200, deadline_ms=500)
        for match in found.matches[:3]:
            print(f"{match.rank}. {match.track}, mu {match.mu}: a candidate match")
        receipt = gallery.erase(subject=f"case {person}")
        print(f"erased {receipt.rows} rows, complete: {receipt.complete}")
    with Gallery.open(file, engine) as gallery:  # after a restart
        print(f"clean: {gallery.verify(erased=receipt).is_clean}, {gallery.stats().tracks} tracks")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a data set, as murank world draws it")
    args = parser.parse_args()
    if not (args.folder / "query").is_dir():
        parser.error(f"{args.folder} has no query/ and bounding_box_test/: murank world draws some")
    main(args.folder, Path("appliance.db"))

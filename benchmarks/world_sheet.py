"""Draw the README's picture of the synthetic world: a row a domain, two crops of each person.

python benchmarks/world_sheet.py -o docs/world.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from murank_export.world import TRAINING, UNSEEN, draw_crop, make_domain, make_people

DOMAINS = (TRAINING, "broad-1", "broad-2", *UNSEEN)
PEOPLE, GAP = 8, 3


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    people = make_people(PEOPLE, seed=3)
    sheet = Image.new("RGB", ((64 + GAP) * 2 * PEOPLE, (128 + GAP) * len(DOMAINS)), "white")
    for row, name in enumerate(DOMAINS):
        domain = make_domain(name)
        for place in range(2 * PEOPLE):
            crop = draw_crop(people[place // 2], domain, (place + row) % 6, (row, place))
            sheet.paste(crop, ((64 + GAP) * place, (128 + GAP) * row))
    sheet.save(arguments.output, quality=85)


if __name__ == "__main__":
    main()

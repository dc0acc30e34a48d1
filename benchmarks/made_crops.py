"""Draw crops of made-up people in Market-1501 names: something to try the image verbs with.

    python benchmarks/made_crops.py -o crops --people 12 --cameras 4

Writes `query/` and `bounding_box_test/`. The figures are coloured shapes: a person keeps hair,
skin, clothes and bag; a camera changes light, background and framing. Not a benchmark of accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = (64, 128)
SKIN = ((241, 205, 178), (198, 145, 106), (141, 94, 66), (92, 58, 41))


def draw(person: int, camera: int, shot: int) -> Image.Image:
    """Return one crop; equal arguments give equal pixels."""
    who = np.random.default_rng([1, person])
    where = np.random.default_rng([2, camera])
    now = np.random.default_rng([3, person, camera, shot])
    hair, top, legs, bag = (tuple(map(int, who.integers(20, 236, 3))) for _ in range(4))
    background = tuple(map(int, where.integers(60, 200, 3)))
    image = Image.new("RGB", SIZE, background)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 96, 64, 128), fill=tuple(value * 3 // 4 for value in background))
    x, y = 32 + int(now.integers(-5, 6)), 8 + int(now.integers(0, 7))
    wide = 11 + int(who.integers(0, 5))
    pen.rectangle((x - wide + 3, y + 62, x - 2, y + 106), fill=legs)
    pen.rectangle((x + 2, y + 62, x + wide - 3, y + 106), fill=legs)
    pen.rounded_rectangle((x - wide, y + 22, x + wide, y + 64), 6, fill=top)
    if who.integers(2):
        side = 1 if now.integers(2) else -1
        pen.rectangle((x + side * wide - 5, y + 34, x + side * wide + 5, y + 56), fill=bag)
    skin = SKIN[int(who.integers(len(SKIN)))]
    pen.ellipse((x - 7, y + 3, x + 7, y + 21), fill=skin)
    pen.pieslice((x - 8, y, x + 8, y + 18), 180, 360, fill=hair)
    light, tint = where.uniform(0.6, 1.3), where.uniform(0.85, 1.15, 3)
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(where.uniform(0.3, 1.2))), float)
    pixels = pixels * light * tint + now.normal(0, 5, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--cameras", type=int, default=4)
    arguments = parser.parse_args()
    for person in range(1, arguments.people + 1):
        for camera in range(1, arguments.cameras + 1):
            for shot, folder in ((0, "query"), (1, "bounding_box_test"), (2, "bounding_box_test")):
                if folder == "query" and camera > 1:
                    continue
                file = arguments.output / folder / f"{person:04}_c{camera}s1_{shot:06}_00.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                draw(person, camera, shot).save(file)
    print(arguments.output)


if __name__ == "__main__":
    main()
